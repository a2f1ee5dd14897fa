"""Costs: the paper's multiply-adds and factors, and what a unit is worth, counted by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import lenet5, lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import timing
from keras_sbp.utils.pruning import counting

LENET5, LENET_FC = 2_293_000, 545_000


def shrunk(model, alive):
    """What shrink makes of a model with these units alive, {noise layer's name: indices}."""
    for name, indices in alive.items():
        layer = model.get_layer(name)
        dead = ~np.isin(np.arange(layer.mu.shape[0]), indices)
        layer.mu.assign(np.where(dead, -20.0, 0.0))
        layer.log_sigma.assign(np.where(dead, 5.0, -5.0))
    return pruning.shrink(model)


@pytest.mark.parametrize("unit", [layers.Identity, SBP])
def test_multiply_adds_of_the_originals(unit):
    assert counting.multiply_adds(lenet5.lenet5(unit)) == LENET5
    assert counting.multiply_adds(lenet_fc.lenet_fc(unit)) == LENET_FC


def test_multiply_adds_count_positions():
    middle = [layers.Conv2D(4, 3, 2, padding="same"), layers.Conv2D(5, (1, 3)), layers.Dense(6), layers.Flatten()]
    model = keras.Sequential([keras.Input((9, 8, 3)), *middle, layers.Dense(2)])
    assert counting.multiply_adds(model) == 5 * 4 * 9 * 3 * 4 + 5 * 2 * 3 * 4 * 5 + 5 * 2 * 5 * 6 + 5 * 2 * 6 * 2
    assert list(counting.kernels(model).values()) == [(3, 3, 3, 4), (1, 3, 4, 5), (5, 6), (60, 2)]


@pytest.mark.parametrize("units, factor", [((245, 160, 55), 11.23), ((537, 217, 130), 3.73), ((434, 174, 78), 6.06)])
def test_factors_of_lenet_fc(units, factor):
    names = ("pixels_unit", "dense1_unit", "dense2_unit")
    smaller = shrunk(lenet_fc.lenet_fc(SBP), {name: np.arange(count) for name, count in zip(names, units)})
    assert lenet_fc.units(counting.kernels(smaller)) == [*units, 10]
    assert round(LENET_FC / counting.multiply_adds(smaller), 2) == factor


@pytest.mark.parametrize("units, factor", [((3, 18, 284, 283), 10.78), ((17, 32, 329, 75), 2.01)])
def test_factors_of_lenet5(units, factor):
    conv1, conv2, features, dense1 = units
    # Position by position, so that every living channel is among the features.
    of_living = np.flatnonzero(np.arange(800) % 50 < conv2)[:features]
    alive = {"conv1_unit": np.arange(conv1), "conv2_unit": np.arange(conv2), "dense1_unit": np.arange(dense1)}
    smaller = shrunk(lenet5.lenet5(SBP), {**alive, "features_unit": of_living})
    assert lenet5.units(counting.kernels(smaller)) == list(units)
    assert round(LENET5 / counting.multiply_adds(smaller), 2) == factor


def test_factor_of_the_papers_ssl_row_of_lenet5():
    """3 - 12 - 800 - 500: dense1 has all its inputs there, though 12 channels have 192."""
    convolutions = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(3, 5), layers.MaxPooling2D(), layers.Conv2D(12, 5)]
    )
    dense = keras.Sequential([keras.Input((800,)), layers.Dense(500), layers.Dense(10)])
    assert round(LENET5 / (counting.multiply_adds(convolutions) + counting.multiply_adds(dense)), 2) == 4.53


def test_units_of_a_constant():
    smaller = shrunk(lenet5.lenet5(SBP), {"conv2_unit": []})
    assert lenet5.units(counting.kernels(smaller)) == [0, 0, 0, 0]
    smaller = shrunk(lenet_fc.lenet_fc(SBP), {"dense1_unit": []})
    assert lenet_fc.units(counting.kernels(smaller)) == [0, 0, 0, 10]


@pytest.mark.parametrize(
    "model, costs",
    [
        (
            lenet5.lenet5,
            {
                "conv1_unit": 24 * 24 * 25 + 8 * 8 * 25 * 50,
                "conv2_unit": 8 * 8 * 25 * 20 + 16 * 500,
                "features_unit": 500,
                "dense1_unit": 800 + 10,
            },
        ),
        (lenet_fc.lenet_fc, {"pixels_unit": 500, "dense1_unit": 784 + 300, "dense2_unit": 500 + 10}),
    ],
)
def test_unit_costs(model, costs):
    noisy = model(SBP)
    assert counting.unit_costs(noisy) == costs
    units = {layer.name: layer.mu.shape[0] for layer in noisy.layers if layer.name in costs}
    mean = sum(units[name] * costs[name] for name in units) / sum(units.values())
    assert counting.relative_costs(noisy) == pytest.approx({name: costs[name] / mean for name in costs})


@pytest.mark.parametrize("log_sigma", [-5.0, 5.0])
def test_unit_costs_do_not_depend_on_what_is_dead_or_on_biases(log_sigma):
    first = layers.Conv2D(4, 3, padding="same", bias_initializer="ones")
    noise = SBP(name="noise", log_sigma=log_sigma)
    middle = [first, noise, layers.Conv2D(5, 3, padding="same"), layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *middle, layers.Dense(2)])
    assert counting.unit_costs(model) == {"noise": 64 * 9 * 3 + 64 * 9 * 5}


def test_speedups():
    models = [keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(units)]) for units in (9, 3)]
    result = timing.speedups(*models, batch_sizes=(4,), pairs=3)
    assert set(result) == {"cpu_speedup", "gpu_speedup", "timing"} and result["cpu_speedup"] > 0
    assert bool(result["gpu_speedup"]) == bool(tf.config.list_logical_devices("GPU"))
    first = result["timing"][0]
    assert [first[name] for name in ("runtime", "threads", "batch_size", "pairs")] == ["LiteRT", 1, 4, 3]
    assert {timing["runtime"] for timing in result["timing"]} == {"LiteRT", "TensorFlow"}


def test_a_speedup_is_the_median_of_the_pairs_ratios(monkeypatch):
    monkeypatch.setattr(timing, "timings", lambda *_: np.array([[3.0, 1.0], [8.0, 2.0], [5.0, 1.0]]))
    result = timing.speedups(None, None)
    assert result["cpu_speedup"] == 4 and result["timing"][0]["quartiles"] == [3.5, 4.5]


def test_networks_are_timed_in_turns(monkeypatch):
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
    seconds = timing.timings(*models, 2, 5, SimpleNamespace(runner=runner))
    np.testing.assert_allclose(seconds, [[0.01, 0.002]] * 5)
    assert turns[-10:] == ["original", "smaller"] * 5
