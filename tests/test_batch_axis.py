"""Networks that compute something across the examples of a batch, or draw random numbers: dead branches before that."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning


class Sampling(L.Layer):
    """As between the halves of a variational autoencoder."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x[0] + ops.exp(x[1] / 2) * keras.random.normal(ops.shape(x[0]), seed=self.seed_generator)


@keras.saving.register_keras_serializable("tests")
class ThereAndBack(L.Layer):
    """It is not opened, as it uses a weight in two ways."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        return ops.matmul(ops.tanh(ops.matmul(x, self.kernel)), ops.transpose(self.kernel))


def without_h(model):
    """The model with noise, in which all units of the layer h are dead."""
    noisy = pruning.insert(model)
    noise = noisy.get_layer("h_noise")
    noise.mu.assign([-20.0] * noise.mu.shape[0])
    noise.log_sigma.assign([5.0] * noise.mu.shape[0])
    return noisy


@pytest.mark.parametrize("units", [3, 7])
@pytest.mark.parametrize(
    "mixed",
    [
        lambda u, v: v + ops.sum(u, axis=0, keepdims=True),
        lambda u, v: v * ops.softmax(u, axis=0),
        lambda u, v: v * ops.normalize(u, axis=0),
        lambda u, v: v + ops.cumsum(u, axis=0),
        lambda u, v: v - ops.mean(u, axis=0),
        lambda u, v: ops.matmul(v, ops.transpose(u)),
        lambda u, v: ops.matmul(u, ops.transpose(u)),
        lambda u, v: ops.matmul(ops.normalize(v), ops.transpose(ops.normalize(u))),
    ],
    ids=["sum", "softmax", "normalize", "cumsum", "mean", "towers", "one tower", "normalized towers"],
)
def test_a_dead_branch_before_an_operation_over_the_batch(mixed, units):
    inputs, others = keras.Input((8,)), keras.Input((6,))
    branch = L.Dense(units, bias_initializer="normal")(L.Dense(9, activation="relu", name="h")(inputs))
    noisy = without_h(keras.Model([inputs, others], mixed(branch, L.Dense(units)(others))))
    smaller, rng = pruning.shrink(noisy), np.random.default_rng(0)
    for count in (1, 3, 5, 7):  # also as many as the branch has units
        x = [rng.normal(size=(count, width)).astype(np.float32) for width in (8, 6)]
        np.testing.assert_allclose(smaller(x), noisy(x), rtol=1e-5, atol=1e-5)


def test_random_numbers_are_drawn_although_what_they_are_added_to_is_constant():
    inputs = keras.Input((8,))
    h = L.Dense(9, activation="relu", name="h")(inputs)
    z = Sampling()([L.Dense(2)(h), L.Dense(2)(h)])
    noisy = without_h(keras.Model(inputs, L.Dense(8)(z)))
    smaller, x = pruning.shrink(noisy), np.ones((4, 8), np.float32)
    first, second = (np.asarray(smaller(x)) for _ in range(2))
    assert np.abs(first - second).max() > 0.01 and np.ptp(first, axis=0).max() > 0.01


def test_a_wide_layer_that_is_not_known_goes_although_its_sums_are_rounded_differently():
    inputs = keras.Input((8,))
    x = L.Dense(512, bias_initializer="normal")(L.Dense(9, activation="relu", name="h")(inputs))
    x = L.Concatenate()([ThereAndBack()(x), inputs])
    noisy = without_h(keras.Model(inputs, L.Dense(3)(x)))
    smaller = pruning.shrink(noisy)
    assert noisy.count_params() > 512**2 and smaller.count_params() < 3 * (512 + 8 + 1) + 1024
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(smaller(x), noisy(x), rtol=1e-5, atol=1e-5)
