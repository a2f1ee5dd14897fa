"""The fast form of a network, against the network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D

from layers.sbp import SBP
from nets.lenet5 import lenet5
from nets.lenet_fc import lenet_fc
from tests.test_pruning import difference, draw_weights, images, kill, random_network
from utils import inference, pruning, runtimes
from utils.experiment import export

TOLERANCE = 1e-5


@pytest.mark.parametrize("seed", range(10))
def test_any_network(seed):
    rng = np.random.default_rng(seed)
    smaller = pruning.shrink(draw_weights(random_network(rng), rng, zeros=0.15))
    assert difference(smaller, inference.fast(smaller)) <= TOLERANCE


@pytest.mark.parametrize("filters, kernel, inputs", [(1, 5, 1), (3, 5, 1), (4, (3, 5), 2), (7, (5, 3), 3), (17, 5, 1)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_convolution_of_few_filters(filters, kernel, inputs, use_bias):
    convolution = Conv2D(filters, kernel, activation="relu", use_bias=use_bias)
    model = keras.Sequential([keras.Input((10, 12, inputs)), convolution, MaxPooling2D(), Flatten(), Dense(4)])
    draw_weights(model, np.random.default_rng(0))
    assert difference(model, inference.fast(model)) <= TOLERANCE


@pytest.mark.parametrize("build, layer", [(lenet5, "features_unit"), (lenet_fc, "pixels_unit")])
def test_the_lenets_load_without_our_code_and_the_model_stays_as_it_is(build, layer, tmp_path):
    rng = np.random.default_rng(0)
    model = draw_weights(build(SBP), rng)
    kill(model.get_layer(layer), np.arange(model.get_layer(layer).input.shape[-1]) % 3 > 0, rng)
    if build is lenet5:
        kill(model.get_layer("conv1_unit"), np.arange(20) > 2, rng)
    smaller = pruning.shrink(model)
    fast = inference.fast(smaller)
    fast.save(tmp_path / "fast.keras")
    assert all(type(op).__module__.startswith("keras.") for op in fast.operations)
    assert difference(smaller, keras.models.load_model(tmp_path / "fast.keras")) <= TOLERANCE
    assert difference(smaller, pruning.shrink(smaller)) <= TOLERANCE
    assert np.ptp(fast(images(fast)), axis=0).max() > 0


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


@pytest.mark.parametrize("runtime", [runtimes.LiteRT(1), runtimes.TensorFlow("CPU:0")])
def test_a_runtime_runs_every_batch_in_turn(runtime, monkeypatch):
    """The images of a batch tell which it is."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Dense(1, kernel_initializer="ones")(inputs))
    given = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 1), np.float32)
    # TensorFlow's loop sums up the outputs: of batches 0, 1, 2 and 0 again, of two images each.
    if runtime.name == "TensorFlow":
        assert float(runtime.runner(model, given)(4)) == 2 * (0 + 1 + 2 + 0)
        return
    fed, interpreter_of = [], runtimes.interpreter_of

    def listening(*arguments):
        interpreter = interpreter_of(*arguments)
        set_tensor = interpreter.set_tensor
        interpreter.set_tensor = lambda place, images: (fed.append(images[0, 0]), set_tensor(place, images))
        return interpreter

    monkeypatch.setattr(runtimes, "interpreter_of", listening)
    runtime.runner(model, given)(4)
    assert fed == [0, 1, 2, 0]
