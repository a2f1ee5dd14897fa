"""The layer of noise in Keras's own training."""

import gc

import keras
import numpy as np
import pytest

from keras_sbp.layers import sbp
from keras_sbp.layers.sbp import SBP
from tests.support.backends import BACKEND

UNITS = 5


def ramp(*shape):
    return np.linspace(0.5, 2, np.prod(shape), dtype="float32").reshape(shape)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def called_twice(layer):
    """A model that computes theta x - theta x: 0 if both calls of the layer have the same sample."""
    inputs = keras.Input((UNITS,))
    return keras.Model(inputs, keras.layers.Subtract()([layer(inputs), layer(inputs)]))


def test_calls_in_one_forward_pass_share_a_sample_and_the_next_pass_has_another():
    layer = SBP(log_sigma=-1.0)
    model = called_twice(layer)
    np.testing.assert_array_equal(array(model(ramp(3, UNITS), training=True)), np.zeros((3, UNITS)))
    one, other = (array(layer(ramp(3, UNITS), training=True)) for _ in range(2))
    assert np.all(one != other)
    np.testing.assert_allclose(one / ramp(3, UNITS), np.tile(one[0] / ramp(3, UNITS)[0], (3, 1)), rtol=1e-6)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_calls_share_a_sample_in_fit(run_eagerly):
    model = called_twice(SBP(log_sigma=-1.0))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    losses = model.fit(ramp(8, UNITS), np.zeros((8, UNITS)), epochs=2, verbose=0).history["loss"]
    assert max(losses) < 1e-12  # a fused multiply-add rounds once
    # Nothing of a compiled step is left.
    gc.collect()
    assert not sbp._computed
    assert np.all(np.isfinite(array(model.layers[1](ramp(2, UNITS), training=True))))


def test_each_step_of_fit_draws_a_sample():
    layer = SBP(log_sigma=-1.0, seed=1)
    model = keras.Sequential([keras.Input((UNITS,)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    batches = [model.train_on_batch(np.ones((4, UNITS)), np.zeros((4, UNITS))) for _ in range(4)]
    assert len(set(map(float, batches))) == 4


class FrozenTrunk(keras.Model):
    """A head that is called twice, at first after a trunk and without gradients."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = (keras.Sequential([keras.Input((UNITS,)), SBP(log_sigma=-1.0)]) for _ in range(2))

    def call(self, inputs, training=False):
        import torch

        with torch.no_grad():
            features = self.head(self.trunk(inputs, training=training), training=training)
        return self.head(features, training=training)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch alone stops recording gradients for a part of a pass")
@pytest.mark.parametrize("training", [False, True])
def test_what_was_computed_without_gradients_is_computed_again(training):
    model = FrozenTrunk()
    model(ramp(2, UNITS), training=training).sum().backward()
    assert model.trunk.layers[0].mu.value.grad is None
    assert np.all(array(model.head.layers[0].mu.value.grad) != 0)


class InBranch(keras.layers.Layer):
    """theta x, computed in a branch, and once more outside of it."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def call(self, inputs, training=False):
        inside = keras.ops.cond(inputs[0, 0] > 0, lambda: self.noise(inputs, training=training), lambda: inputs)
        return inside + self.noise(inputs, training=training)


@pytest.mark.skipif(BACKEND == "jax", reason="there a branch cannot advance a seed of Keras")
def test_calls_inside_and_outside_of_a_branch_work_in_one_forward_pass():
    noise = SBP(log_sigma=-1.0)
    noise.build((None, UNITS))
    inputs = keras.Input((UNITS,))
    model = keras.Model(inputs, InBranch(noise)(inputs))
    model.compile("sgd", "mse")
    assert 0 < model.train_on_batch(np.ones((4, UNITS)), np.zeros((4, UNITS))) < 4


@pytest.mark.slow
def test_sampling_draws_for_each_layer_what_it_would_draw_alone():
    layers = [SBP(log_sigma=-1.0, seed=number) for number in range(2)]
    for layer, units in zip(layers, (4, 7)):
        layer.build((None, units))
    seeds = [array(layer.seed_generator.state) for layer in layers]
    alone = [array(layer.sample()) for layer in layers]
    for layer, seed in zip(layers, seeds):
        layer.seed_generator.state.assign(seed)
    with sbp.sampling(layers) as samples:
        for layer, expected in zip(layers, alone, strict=True):
            np.testing.assert_allclose(array(samples[layer]), expected, rtol=1e-6)
            np.testing.assert_array_equal(array(layer.sample()), array(samples[layer]))


def test_fit_keeps_the_informative_unit():
    """Only the first unit predicts the label; the noise of the others grows."""
    x = np.random.default_rng(0).normal(size=(256, UNITS)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    layer = SBP(kl_weight=1 / len(x), log_sigma=-2.0, seed=1)
    model = keras.Sequential([keras.Input((UNITS,)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(x, y, epochs=10, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < history[0]
    snr = array(layer.snr())
    assert np.all(snr[0] > snr[1:])


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_a_step_with_rematerialization_leaks_no_tracer():
    import jax

    layer = SBP(log_sigma=-1.0)
    model = called_twice(layer)
    trainable, other = (
        [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
    )

    def loss(trainable):
        outputs, _ = model.stateless_call(trainable, other, ramp(3, UNITS), training=True)
        return keras.ops.sum(outputs**2)

    with jax.checking_leaks():
        value, gradient = jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(trainable)
    assert value == 0 and all(np.all(array(g) == 0) for g in gradient)
