"""Optimisers and courses of rates, beside Keras's own and closed forms."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.utils.training import updates


def test_the_learning_rate_is_constant_then_falls_on_a_line_to_zero():
    decay = updates.Course(0.5, 100, 200)
    assert [float(decay(step)) for step in (0, 99, 100, 150, 175, 200)] == [0.5, 0.5, 0.5, 0.25, 0.125, 0]


def test_the_learning_rate_may_rise_on_a_line_first():
    rising = updates.Course(0.5, 20, 100, warm=9)
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
def test_a_fused_update_is_keras_s(fused, kind):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(20, 3, 4)).astype(np.float32)
    found = []
    for make in (fused, kind):
        variable = keras.Variable(start, dtype="float32")
        optimizer = make(updates.Course(0.1, 10, 20))
        optimizer.build([variable])
        apply = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
        for gradient in gradients:
            apply(tf.constant(gradient))
        found.append(np.asarray(variable))
    # 1 - beta2^t loses four digits of float32 in the first steps, in both.
    np.testing.assert_allclose(*found, rtol=0, atol=2e-5)
    assert np.abs(found[0] - start).max() > 0.1


def polynomial(matrix, steps):
    """The matrix with each singular value s of matrix / its norm replaced by p(p(...p(s))), by a decomposition."""
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(steps):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(3, 3, 16, 5), (1, 1, 4, 12)], ids=["tall", "wide"])
def test_muon_moves_a_kernel_by_its_mean_gradient_with_equal_singular_values(shape):
    rng = np.random.default_rng(0)
    start, gradients = 3 * rng.normal(size=shape), rng.normal(size=(4, *shape))
    variable = keras.Variable(start, dtype="float32")
    optimizer = updates.Muon(updates.Course(0.1, 10, 20), momentum=0.9)
    optimizer.build([variable])
    expected, accumulated = start, 0.0
    for gradient in gradients:
        # Whatever the loss is multiplied by, and however strong its decay is.
        scaled = 50 * gradient + 7 * np.asarray(variable)
        optimizer.apply([tf.constant(scaled, tf.float32)], [variable])
        expected = expected * np.sqrt(shape[-1]) / np.linalg.norm(expected)
        across = gradient - expected * np.sum(gradient * expected) / np.sum(expected**2)
        accumulated = 0.6 * accumulated + across
        moved = (0.6 * accumulated + across).reshape(-1, shape[-1])
        expected = expected - 0.1 * polynomial(moved, 3).reshape(shape)
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=0, atol=2e-5)


def test_muon_leaves_a_kernel_without_a_gradient_where_it_points():
    start = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    variable = keras.Variable(start, dtype="float32")
    optimizer = updates.Muon(0.1, momentum=0.9)
    optimizer.build([variable])
    optimizer.apply([tf.zeros(start.shape)], [variable])
    np.testing.assert_allclose(np.asarray(variable), start * 5**0.5 / np.linalg.norm(start), rtol=1e-5)


def test_muon_is_nesterov_s_momentum_where_there_is_no_kernel_of_a_convolution():
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
