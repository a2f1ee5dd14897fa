"""Timing: of networks as they are deployed, alternating, by the median of ratios."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.pruning import counting


@pytest.mark.slow
def test_speedups_in_each_runtime(monkeypatch):
    models = [keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(units)]) for units in (9, 3)]
    monkeypatch.setattr(timing, "ROW_IMAGES", 4)
    monkeypatch.setattr(timing, "PAIRS", 3)
    result = timing.speedups(*models)
    assert set(result) == {"cpu_speedup", "gpu_speedup", "timing"} and result["cpu_speedup"] > 0
    assert bool(result["gpu_speedup"]) == bool(tf.config.list_logical_devices("GPU"))
    first = result["timing"][0]
    assert first["processor"]
    assert [first[name] for name in ("runtime", "threads", "batch_size", "pairs")] == ["LiteRT", 1, 4, 3]
    assert {entry["runtime"] for entry in result["timing"]} == {"LiteRT", "TensorFlow"}
    row = timing.speedups(*models, "row")["timing"]
    assert [(entry["runtime"], entry["threads"]) for entry in row if entry["device"] == "CPU"] == [("LiteRT", 1)]


@pytest.mark.parametrize("units, images", [(500, 1024), (50_000, 400)])
def test_a_row_of_a_large_network_is_timed_on_fewer_images(units, images, monkeypatch):
    """1,000 inputs: 500 units are 500,000 MACs an image, 50,000 are 5e7, of which 2e10 are 400 images'."""
    asked = []
    monkeypatch.setattr(timing, "seconds_per_batch", lambda *given, **_: asked.append(given[2]) or np.ones((1, 2)))
    inputs = keras.Input((1000,))
    timing.speedups(keras.Model(inputs, layers.Dense(units, use_bias=False)(inputs)), None, "row")
    assert asked[0] == images


def test_speedup_is_the_median_ratio(monkeypatch):
    pairs = np.array([[3.0, 1.0], [8.0, 2.0], [5.0, 1.0]])
    monkeypatch.setattr(timing, "seconds_per_batch", lambda *_, **__: pairs)
    result = timing.speedups(None, None)
    assert result["cpu_speedup"] == 4 and result["timing"][0]["quartiles"] == [3.5, 4.5]


def test_networks_alternate_and_the_first_batch_is_not_timed(monkeypatch):
    """By a clock on which the first batch after the other network's takes a second more: that one is not timed."""
    now, turns, batch = [0.0], [], {"original": 0.01, "smaller": 0.002}

    def runner(model, images):
        def run(batches):
            now[0] += batches * batch[model.name]
            if turns[-1:] != [model.name]:
                now[0] += 1
                turns.append(model.name)

        return run

    models = []
    for name in batch:
        inputs = keras.Input((4,), name="x")
        models.append(keras.Model(inputs, layers.Dense(3)(inputs), name=name))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    seconds = timing.seconds_per_batch(*models, 2, 5, SimpleNamespace(runner=runner, name="a runtime"))
    np.testing.assert_allclose(seconds, [[0.01, 0.002]] * 5)
    assert turns[-10:] == ["original", "smaller"] * 5


def test_padding_is_not_removed_before_timing():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, activation="relu")(layers.Conv2D(5, 3, activation="relu")(inputs))
    padded = pruning.pad_filters(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), 8)
    assert counting.multiply_adds(timing.as_deployed(padded)) >= counting.multiply_adds(padded)


def test_batch_norm_is_folded_before_timing():
    inputs = keras.Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.Conv2D(5, 3)(inputs))
    deployed = timing.as_deployed(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in deployed.layers)


def test_networks_are_timed_in_inference_mode():
    """Keras's random layers are on unless they are told."""
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Flatten()(layers.RandomTranslation(0.5, 0.5, fill_mode="constant")(inputs)))
    images = np.random.default_rng(0).random((1, 2, 8, 8, 1), np.float32)
    run = runtimes.TensorFlow("CPU:0").runner(model, images)
    assert run(1) == run(1) == pytest.approx(images.sum(), rel=1e-5)


def test_networks_with_16_bit_outputs_can_be_timed():
    inputs = keras.Input((4,), dtype="float32")
    model = keras.Model(inputs, layers.Dense(3, kernel_initializer="ones", dtype="mixed_bfloat16")(inputs))
    run = runtimes.TensorFlow("CPU:0").runner(model, np.ones((1, 2, 4), np.float32))
    assert run(2) == 2 * 2 * 3 * 4


def test_tensorflow_runs_the_batches_one_after_the_other():
    """The images of a batch tell which it is."""
    run = runtimes.TensorFlow("CPU:0").runner(identity(), batches())
    # The loop sums up the outputs: of batches 0, 1, 2 and 0 again, of two images each.
    assert float(run(4)) == 2 * (0 + 1 + 2 + 0)


def test_litert_inputs_are_set_before_timing(monkeypatch):
    calls, make_interpreter = [], runtimes.make_interpreter

    def listening(*arguments):
        interpreter = make_interpreter(*arguments)
        set_tensor, invoke = interpreter.set_tensor, interpreter.invoke
        interpreter.set_tensor = lambda index, images: (calls.append(images[0, 0]), set_tensor(index, images))
        interpreter.invoke = lambda: (calls.append("invoke"), invoke())
        return interpreter

    monkeypatch.setattr(runtimes, "make_interpreter", listening)
    run = runtimes.LiteRT(1).runner(identity(), batches() + 5)
    assert calls == [0, "invoke", 5], "a trial on zeros when it is converted, then the batch"
    calls.clear()
    run(3)
    assert calls == 3 * ["invoke"]


def identity():
    inputs = keras.Input((1,))
    return keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(inputs))


def batches():
    """Three of two images, (3, 2, 1): all of 0, all of 1, all of 2."""
    return np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 1), np.float32)
