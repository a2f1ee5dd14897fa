"""Optimizers and learning rate schedules, against Keras's own and closed forms."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import Retraining
from keras_sbp.utils.training import updates


def test_learning_rate_is_constant_and_then_falls_linearly_to_zero():
    decay = updates.LinearWarmupDecay(0.5, 100, 200)
    assert [float(decay(step)) for step in (0, 99, 100, 150, 175, 200)] == [0.5, 0.5, 0.5, 0.25, 0.125, 0]


def test_learning_rate_rises_linearly_during_warmup():
    rising = updates.LinearWarmupDecay(0.5, 20, 100, warmup=9)
    np.testing.assert_allclose([float(rising(step)) for step in (0, 4, 9, 20, 60)], [0.05, 0.25, 0.5, 0.5, 0.25])


@pytest.mark.parametrize(
    "fused, kind",
    [
        (functools.partial(updates.FusedAdam, beta_1=0.95), functools.partial(keras.optimizers.Adam, beta_1=0.95)),
        (
            functools.partial(updates.FusedNesterov, momentum=0.9),
            functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
        ),
    ],
    ids=["Adam", "Nesterov"],
)
def test_fused_updates_match_keras(fused, kind):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(20, 3, 4)).astype(np.float32)
    found = []
    for make in (fused, kind):
        variable = keras.Variable(start, dtype="float32")
        optimizer = make(updates.LinearWarmupDecay(0.1, 10, 20))
        optimizer.build([variable])
        apply = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
        for gradient in gradients:
            apply(tf.constant(gradient))
        found.append(np.asarray(variable))
    # 1 - beta2^t loses four digits of float32 in the first steps, in both.
    np.testing.assert_allclose(*found, rtol=0, atol=2e-5)
    assert np.abs(found[0] - start).max() > 0.1


def polynomial(matrix, steps):
    """The matrix, divided by its norm, with each singular value s replaced by p(p(...p(s))), by its decomposition."""
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(steps):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(3, 3, 16, 5), (1, 1, 4, 12)], ids=["tall", "wide"])
def test_muon_updates_a_kernel_by_its_orthogonalized_mean_gradient(shape):
    rng = np.random.default_rng(0)
    start, gradients = 3 * rng.normal(size=shape), rng.normal(size=(4, *shape))
    variable = keras.Variable(start, dtype="float32")
    optimizer = updates.Muon(updates.LinearWarmupDecay(0.1, 10, 20), momentum=0.9)
    optimizer.build([variable])
    expected, accumulated = start, 0.0
    for gradient in gradients:
        # The scale of the loss and the weight decay make no difference.
        scaled = 50 * gradient + 7 * np.asarray(variable)
        optimizer.apply([tf.constant(scaled, tf.float32)], [variable])
        expected = expected * np.sqrt(shape[-1]) / np.linalg.norm(expected)
        across = gradient - expected * np.sum(gradient * expected) / np.sum(expected**2)
        accumulated = 0.6 * accumulated + across
        moved = (0.6 * accumulated + across).reshape(-1, shape[-1])
        expected = expected - 0.1 * polynomial(moved, 3).reshape(shape)
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=0, atol=2e-5)


def test_muon_trains_a_padded_kernel_as_the_kernel_without_padding():
    rng = np.random.default_rng(0)
    found = []
    for padding in (0, 11):
        pad = ((0, 0),) * 3 + ((0, padding),)
        variable = keras.Variable(np.pad(rng.normal(size=(3, 3, 16, 5)), pad), dtype="float32")
        optimizer = updates.Muon(0.1, momentum=0.9)
        optimizer.build([variable])
        for _ in range(3):
            gradient = np.pad(rng.normal(size=(3, 3, 16, 5)), pad)
            optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        found.append(np.asarray(variable))
        rng = np.random.default_rng(0)
    np.testing.assert_allclose(found[1][..., :5], found[0], rtol=0, atol=1e-5)
    assert not found[1][..., 5:].any()


def test_muon_keeps_the_direction_of_a_kernel_without_gradient():
    start = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    variable = keras.Variable(start, dtype="float32")
    optimizer = updates.Muon(0.1, momentum=0.9)
    optimizer.build([variable])
    optimizer.apply([tf.zeros(start.shape)], [variable])
    np.testing.assert_allclose(np.asarray(variable), start * 5**0.5 / np.linalg.norm(start), rtol=1e-5)


def test_muon_is_nesterov_momentum_for_other_variables():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    found = []
    for make in (updates.Muon, functools.partial(keras.optimizers.SGD, nesterov=True)):
        variable = keras.Variable(start, dtype="float32")
        optimizer = make(0.1, momentum=0.9)
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        found.append(np.asarray(variable))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("compute_dtype, tolerance", [("float32", 2e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_muon_computes_in_the_dtype_that_it_is_given(compute_dtype, tolerance, policy):
    """Whatever Keras's global policy is."""
    rng = np.random.default_rng(0)
    start, gradient = rng.normal(size=(3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    variable, before = keras.Variable(start, dtype="float32"), keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        optimizer = updates.muon(0.1, "0", compute_dtype)
        optimizer.build([variable])
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    finally:
        keras.config.set_dtype_policy(before)
    kernel = start * np.sqrt(5) / np.linalg.norm(start)
    across = gradient - kernel * np.sum(gradient * kernel) / np.sum(kernel**2)
    expected = kernel - 0.1 * polynomial(across.reshape(-1, 5), 3).reshape(start.shape)
    error = np.abs(np.asarray(variable) - expected).max()
    assert error < tolerance and (error > 1e-4) == (compute_dtype == "bfloat16")


@pytest.mark.parametrize("kernels, optimizer", [(0.04, updates.Muon), (0.0, updates.FusedNesterov)])
def test_fine_tuning_trains_kernels_of_convolutions_by_muon_if_they_have_a_rate(kernels, optimizer):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    found = Retraining(epochs=1, learning_rate=0.5, kernel_learning_rate=kernels).updates(model, num_examples=10)
    rates = [found.rate(weight) for weight in model.trainable_variables]
    assert rates == [kernels or 0.05, *[0.05] * 5], "kernel, bias, gamma, beta, kernel, bias"
    assert type(found.optimizer(0.1, "0")) is optimizer


@pytest.mark.parametrize("optimizer, prefix", [("adam", "adam"), ("nesterov", "sgd"), ("muon", "muon")])
def test_optimizers_have_the_names_of_old_checkpoints(optimizer, prefix):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    found = updates.Updates(
        lambda variable: 0.1 if variable.name == "bias" else 0.2, optimizer=getattr(updates, optimizer)
    ).optimizers(model, 10)
    assert [made.name for made, _ in found] == [f"{prefix}_0", f"{prefix}_1"]
    assert [[variable.name for variable in variables] for _, variables in found] == [["bias"], ["kernel"]]


def test_the_schedule_is_a_fraction_of_the_training():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    found = updates.Updates(lambda variable: 0.5, warmup=0.1, decay_start=0.2).optimizers(model, 100)
    schedule = updates.LinearWarmupDecay(0.5, decay_start=20, end=100, warmup=10)
    ((optimizer, _),) = found
    for step in (0, 10, 20, 60, 99):
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == float(schedule(step))


def test_learning_rates_that_are_all_zero_are_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(UserError, match="every learning rate is 0"):
        updates.Updates(lambda variable: 0.0).optimizers(model, 10)
