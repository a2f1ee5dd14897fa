"""Deployed networks, arranged for a CPU and converted for LiteRT, against the networks themselves."""

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


@pytest.mark.parametrize("seed", range(10))
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


class Turned(Flatten):
    """Flattens backwards."""

    def call(self, inputs):
        return super().call(inputs)[:, ::-1]


@pytest.mark.parametrize(
    "flatten",
    [
        [],
        [Flatten()],
        [Flatten(), Flatten()],
        [Flatten(data_format="channels_first")],
        [Turned()],
    ],
)
def test_litert_selects_the_right_units_before_flatten(flatten):
    """All units differ, so that a wrong one shows."""
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
    # LiteRT would copy what is flattened.
    assert not any(isinstance(op, Flatten) for op in arrange.for_cpu(smaller, litert=True).operations)


def test_exports_compute_what_the_network_does(tmp_path, capsys):
    model = keras.Sequential([keras.Input((8, 8, 1)), Conv2D(3, 5, activation="relu"), Flatten(), Dense(4)])
    smaller = pruning.shrink(draw_weights(model, np.random.default_rng(0), zeros=0.3))
    smaller.save(tmp_path / "network.keras")
    given, expected = images(smaller), np.asarray(smaller(images(smaller)))
    answers = []

    def error(network):
        answers.append(np.asarray(network(given, training=False)))
        return 12.5 * len(answers)

    export.export(tmp_path, np.random.default_rng(1).random((200, 8, 8, 1), np.float32), error)
    archive = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(archive.serve(given), expected, atol=1e-5)
    lite = Interpreter(str(tmp_path / "network.tflite"))
    lite.allocate_tensors()
    for image, logits in zip(given, expected):
        lite.set_tensor(lite.get_input_details()[0]["index"], image[None])
        lite.invoke()
        np.testing.assert_allclose(lite.get_tensor(lite.get_output_details()[0]["index"])[0], logits, atol=1e-5)
    # Of eight bits: off by some 256ths of what the outputs span, and no more.
    int8 = Interpreter(str(tmp_path / "network-int8.tflite"))
    floats = [tensor["index"] for tensor in int8.get_tensor_details() if tensor["dtype"] == np.float32]
    assert len(floats) == 2, "more than its inputs and its outputs"
    span = np.ptp(expected)
    assert 0 < np.abs(answers[0] - expected).max() < 0.03 * span
    np.testing.assert_array_equal(answers[1], expected)
    assert "network-int8.tflite: 12.50 % error, network.keras has 25.00 %" in capsys.readouterr().err


def test_int8_ranges_come_from_examples_of_any_dtype():
    """As `fit` takes them: bytes for a network that scales them itself."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Rescaling(1 / 255), Dense(4)])
    draw_weights(model, np.random.default_rng(0))
    given = np.random.default_rng(1).integers(256, size=(200, 8), dtype=np.uint8)
    expected = np.asarray(model(given))
    found = runtimes.predictor(runtimes.to_litert(model, given))(given.astype(np.float32))
    assert 0 < np.abs(found - expected).max() < 0.03 * np.ptp(expected)
