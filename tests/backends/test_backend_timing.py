"""Speed-ups by XLA, and what does not run on this backend."""

import keras
import numpy as np
import pytest

from keras_sbp.utils.deployment import runtimes, timing
from tests.support.backends import BACKEND

on_jax = pytest.mark.skipif(BACKEND != "jax", reason="XLA is timed through JAX")


def network(units):
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(units, 3, activation="relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@on_jax
def test_xla_runs_the_batches_one_after_the_other():
    model, images = network(5), np.random.default_rng(0).normal(size=(4, 2, 6, 6, 1)).astype("float32")
    sums = [model.predict(batch, verbose=0).sum() for batch in images]
    run = runtimes.XLA().runner(model, images)
    assert [run(batches) for batches in (1, 4, 6)] == pytest.approx(
        [sums[0], sum(sums), sum(sums) + sum(sums[:2])], 1e-4
    )


@on_jax
@pytest.mark.slow
def test_speedups_are_of_the_network_as_it_is_and_padded(monkeypatch):
    monkeypatch.setattr(timing, "ROW_IMAGES", 4)
    monkeypatch.setattr(timing, "PAIRS", 3)
    found = timing.xla_speedups(network(9), network(3))
    plain, padded = found["timing"]
    assert bool(found["gpu_speedup"]) == (plain["device"] != "CPU")
    assert "padded_to" not in plain and padded["padded_to"] == 8
    assert all(
        entry["speedup"] > 0 and len(entry["quartiles"]) == 2 and entry["pairs"] == 3 for entry in found["timing"]
    )
