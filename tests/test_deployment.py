"""Deployed networks, arranged for a CPU and converted for LiteRT, against the networks themselves."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets.lenet5 import lenet5
from keras_sbp.nets.lenet_fc import lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import arrange, runtimes
from keras_sbp.utils.experiment import export
from tests.stress import keras_applications
from tests.support.networks import difference, draw_weights, images, kill, random_network

TOLERANCE = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.mark.parametrize("seed", range(6))
def test_arranged_random_networks_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    smaller = pruning.shrink(draw_weights(random_network(rng), rng, zeros=0.15))
    assert difference(smaller, arrange.for_cpu(smaller)) <= TOLERANCE


@pytest.mark.parametrize("filters, kernel, inputs", [(1, 5, 1), (3, 5, 1), (4, (3, 5), 2), (7, (5, 3), 3), (17, 5, 1)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_arranged_convolutions_of_few_filters_compute_the_same(filters, kernel, inputs, use_bias):
    convolution = Conv2D(filters, kernel, activation="relu", use_bias=use_bias)
    model = keras.Sequential([keras.Input((10, 12, inputs)), convolution, MaxPooling2D(), Flatten(), Dense(4)])
    draw_weights(model, np.random.default_rng(0))
    assert difference(model, arrange.for_cpu(model)) <= TOLERANCE


@pytest.mark.parametrize("build, layer", [(lenet5, "features_unit"), (lenet_fc, "pixels_unit")])
def test_arranged_lenets_are_stock_keras_and_leave_the_model_unchanged(build, layer, tmp_path):
    rng = np.random.default_rng(0)
    model = draw_weights(build(SBP), rng)
    kill(model.get_layer(layer), np.arange(model.get_layer(layer).input.shape[-1]) % 3 > 0, rng)
    if build is lenet5:
        kill(model.get_layer("conv1_unit"), np.arange(20) > 2, rng)
    smaller = pruning.shrink(model)
    fast = arrange.for_cpu(smaller)
    fast.save(tmp_path / "fast.keras")
    assert all(type(op).__module__.startswith("keras.") for op in fast.operations)
    assert difference(smaller, keras.models.load_model(tmp_path / "fast.keras")) <= TOLERANCE
    assert difference(smaller, pruning.shrink(smaller)) <= TOLERANCE
    assert np.ptp(fast(images(fast)), axis=0).max() > 0


@pytest.mark.parametrize("size", [8, None])
def test_arranged_networks_of_any_image_size_compute_the_same(size):
    """A softmax at each pixel, images of any size, a convolution that is called twice."""
    inputs = keras.Input((size, size, 1))
    shared = keras.layers.Conv2D(1, 3, activation="relu")
    x = keras.layers.Conv2D(3, 1, activation="softmax")(shared(shared(keras.layers.Conv2D(1, 3)(inputs))))
    model = keras.Model(inputs, x)
    x = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, arrange.for_cpu(model), x) < 1e-5


class Reversed(Flatten):
    """Flattens in reverse order."""

    def call(self, inputs):
        return super().call(inputs)[:, ::-1]


@pytest.mark.parametrize(
    "flatten",
    [
        [],
        [Flatten()],
        [Flatten(), Flatten()],
        [Flatten(data_format="channels_first")],
        [Reversed()],
    ],
)
def test_litert_selects_the_right_units_before_flatten(flatten):
    """No two units are equal."""
    inputs = keras.Input((3, 4, 5) if flatten else (60,))
    x = inputs
    for layer in flatten:
        x = layer(x)
    taken = keras.ops.take(x, [59, 0, 7, 31, 30, 12], axis=-1)
    model = keras.Model(inputs, keras.layers.Concatenate()([taken, x]))
    given = np.random.default_rng(0).random((4, *inputs.shape[1:]), np.float32)
    np.testing.assert_array_equal(runtimes.predictor(runtimes.to_litert(model))(given), model(given))


@pytest.mark.parametrize("build, layer", [(lenet5, "features_unit"), (lenet_fc, "pixels_unit")])
def test_lenets_in_litert_compute_the_same(build, layer):
    rng = np.random.default_rng(0)
    model = draw_weights(build(SBP), rng)
    kill(model.get_layer(layer), np.arange(model.get_layer(layer).input.shape[-1]) % 3 > 0, rng)
    smaller = pruning.shrink(model)
    given = images(smaller)
    np.testing.assert_allclose(runtimes.predictor(runtimes.to_litert(smaller))(given), smaller(given), atol=1e-5)
    # LiteRT copies what is flattened.
    assert not any(isinstance(op, Flatten) for op in arrange.for_cpu(smaller, litert=True).operations)


def test_exports_compute_what_the_network_does(tmp_path, capsys):
    model = keras.Sequential([keras.Input((8, 8, 1)), Conv2D(3, 5, activation="relu"), Flatten(), Dense(4)])
    smaller = pruning.shrink(draw_weights(model, np.random.default_rng(0), zeros=0.3))
    smaller.save(tmp_path / "network.keras")
    given, expected = images(smaller), np.asarray(smaller(images(smaller)))
    predictions = []

    def scores(network):
        predictions.append(np.asarray(network(given, training=False)))
        return {"error": 12.5 * len(predictions)}

    examples = np.random.default_rng(1).random((200, 8, 8, 1), np.float32)
    export.export(SimpleNamespace(directory=tmp_path, examples=lambda: examples, scores=scores))
    archive = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(archive.serve(given), expected, atol=1e-5)
    lite = Interpreter(str(tmp_path / "network.tflite"))
    lite.allocate_tensors()
    for image, logits in zip(given, expected):
        lite.set_tensor(lite.get_input_details()[0]["index"], image[None])
        lite.invoke()
        np.testing.assert_allclose(lite.get_tensor(lite.get_output_details()[0]["index"])[0], logits, atol=1e-5)
    # Eight bits: the outputs are off by a few 256ths of their range.
    int8 = Interpreter(str(tmp_path / "network-int8.tflite"))
    floats = [tensor["index"] for tensor in int8.get_tensor_details() if tensor["dtype"] == np.float32]
    assert len(floats) == 2, "more than its inputs and its outputs"
    span = np.ptp(expected)
    assert 0 < np.abs(predictions[0] - expected).max() < 0.03 * span
    np.testing.assert_array_equal(predictions[1], expected)
    assert "network-int8.tflite: 12.50 % error, network.keras has 25.00 %" in capsys.readouterr().err


def test_int8_ranges_come_from_examples_of_any_dtype():
    """As `fit` takes them: uint8 for a network with its own Rescaling."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Rescaling(1 / 255), Dense(4)])
    draw_weights(model, np.random.default_rng(0))
    given = np.random.default_rng(1).integers(256, size=(200, 8), dtype=np.uint8)
    expected = np.asarray(model(given))
    found = runtimes.predictor(runtimes.to_litert(model, given))(given.astype(np.float32))
    assert 0 < np.abs(found - expected).max() < 0.03 * np.ptp(expected)


def two_inputs():
    images, features = keras.Input((8, 8, 1), name="z"), keras.Input((5,), name="a")
    x = keras.layers.Concatenate()([Flatten()(Conv2D(3, 3, activation="relu")(images)), features])
    return keras.Model([images, features], [Dense(4)(x), Dense(2)(features)])


@pytest.mark.parametrize("form", [list, dict])
def test_int8_networks_with_several_inputs_and_outputs(form):
    model = two_inputs()
    examples = [np.random.default_rng(0).normal(size=(100, *x.shape[1:])) for x in model.inputs]
    content = runtimes.to_litert(model, examples if form is list else {"a": examples[1], "z": examples[0]})
    run = Interpreter(model_content=content).get_signature_runner()
    floats = [example[:1].astype(np.float32) for example in examples]
    found, expected = run(z=floats[0], a=floats[1]), model(floats)
    for name, output in zip(("output_0", "output_1"), expected):
        assert 0 < np.abs(found[name] - output).max() < 0.05 * np.ptp(model(examples)[0])


@pytest.mark.parametrize(
    "layer, missing",
    [
        (keras.layers.LSTM(8), "TensorListReserve"),
        (keras.layers.Conv1DTranspose(4, 3, padding="same", dilation_rate=2), "Conv2DBackpropInput"),
    ],
)
def test_error_for_networks_that_litert_cannot_run(layer, missing):
    inputs = keras.Input((6, 5))
    network = keras.Model(inputs, Dense(2)(layer(inputs)), name="network")
    with pytest.raises(ValueError, match=f"^LiteRT cannot run network .no kernel for {missing}.*unroll=True") as error:
        runtimes.to_litert(network)
    assert "\n" not in str(error.value)


def test_unrolled_recurrent_networks_run_in_litert():
    inputs = keras.Input((6, 5))
    network = keras.Model(inputs, Dense(2)(keras.layers.LSTM(8, unroll=True)(inputs)))
    given = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    np.testing.assert_allclose(runtimes.predictor(runtimes.to_litert(network))(given), network(given), atol=1e-5)


@pytest.mark.parametrize("kind", ["kernel", "text"])
def test_error_for_networks_that_litert_cannot_convert_or_only_load(kind):
    if kind == "kernel":
        inputs = keras.Input((4,))
        network, missing = keras.Model(inputs, keras.ops.erfinv(inputs), name="network"), "no kernel for Erfinv"
    else:
        inputs = keras.Input((), dtype="string")
        words = keras.layers.TextVectorization(30, output_sequence_length=8, vocabulary=["a", "b"])
        x = keras.layers.Embedding(30, 4)(words(inputs))
        network, missing = keras.Model(inputs, Dense(2)(x), name="network"), "no kernel for "
    with pytest.raises(ValueError, match=f"^LiteRT cannot run network .{missing}") as error:
        runtimes.to_litert(network)
    assert "\n" not in str(error.value)


def test_networks_for_images_of_any_size_run_in_litert():
    inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Conv2D(4, 5)(inputs)))
    interpreter = runtimes.make_interpreter(runtimes.to_litert(network), 1, 2, 9)
    assert interpreter.get_input_details()[0]["shape"].tolist() == [2, 9, 9, 3]


def test_error_for_examples_of_another_shape():
    model = two_inputs()
    with pytest.raises(ValueError, match=r"examples of \(5, 7\) do not fit the input a of \(None, 5\)"):
        runtimes.to_litert(model, {"a": np.ones((5, 7)), "z": np.ones((5, 8, 8, 1))})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a, z: [z, a[:3]], r"different numbers \(5 of z, 3 of a\): give as many for each"),
        (lambda a, z: [z[:0], a[:0]], "there are no examples: give some"),
        (lambda a, z: {"a": a, "z": np.where(z > 0, np.nan, z)}, "examples of z hold numbers that are not finite"),
        (lambda a, z: {"a": a / 0, "z": z / 0}, "examples of z, a hold numbers that are not finite"),
        (lambda a, z: [z, a, a], "examples of 3 inputs: .* has 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_examples_that_give_no_ranges_are_refused(change, message):
    with pytest.raises(ValueError, match=message) as raised:
        runtimes.to_litert(two_inputs(), change(np.ones((5, 5)), np.ones((5, 8, 8, 1))))
    assert "\n" not in str(raised.value)


def test_import_of_the_runtimes_does_not_load_litert():
    code = "import sys, keras_sbp; assert not any(name.startswith(('ai_edge', 'tqdm')) for name in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
