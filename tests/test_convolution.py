"""Gradients of kernels as matrix products, against TensorFlow's own convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.layers import sparse_vd
from keras_sbp.utils.training import convolution
from tests.support.steps import steps


def gradients(layer, images, weights):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
    return [outputs, *tape.gradient(loss, [images, layer.kernel.value, layer.bias.value])]


@pytest.mark.parametrize("dtype, rounding", [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
@pytest.mark.parametrize("height, width, size", [(4, 4, 3), (2, 2, 3), (1, 3, 3), (2, 5, (4, 1)), (2, 2, 7)])
def test_gradients_match_those_of_tensorflow(height, width, size, dtype, rounding):
    def model():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((height, width, 5))
        return keras.Model(inputs, keras.layers.Conv2D(7, size, padding="same", dtype=dtype)(inputs))

    generator = np.random.default_rng(0)
    images, weights = (tf.constant(generator.normal(size=(6, height, width, n)), tf.float32) for n in (5, 7))
    plain, ours = model(), model()
    convolution.use_matmul_kernel_gradients(ours)
    assert ["convolution_op" in vars(m.layers[1]) for m in (plain, ours)] == [False, True]
    for expected, found in zip(*(gradients(m.layers[1], images, weights) for m in (plain, ours)), strict=True):
        expected, found = (np.asarray(value, np.float32) for value in (expected, found))
        np.testing.assert_allclose(found, expected, atol=rounding * abs(expected).max())


@pytest.mark.parametrize(
    "kind, settings, size",
    [
        ("Conv2D", {"padding": "valid"}, 4),
        ("Conv2D", {"padding": "same", "strides": 2}, 4),
        ("Conv2D", {"padding": "same", "dilation_rate": 2}, 4),
        ("Conv2D", {"padding": "same", "groups": 2}, 4),
        ("Conv2D", {"padding": "same"}, 5),
        ("SeparableConv2D", {"padding": "same"}, 4),
    ],
)
def test_other_convolutions_stay_as_they_are(kind, settings, size):
    inputs, layer = keras.Input((size, size, 4)), getattr(keras.layers, kind)(4, 3, **settings)
    convolution.use_matmul_kernel_gradients(keras.Model(inputs, layer(inputs)))
    assert "convolution_op" not in vars(layer)


def test_both_convolutions_of_sparse_vd_have_these_gradients():
    """The gradients of theta and of log sigma^2, with the same noise."""

    def gradients(changed):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((2, 2, 5))
        model = keras.Model(inputs, sparse_vd.Conv2D(7, 3, padding="same", log_sigma2=-1.0, seed=1)(inputs))
        if changed:
            convolution.use_matmul_kernel_gradients(model)
        assert ("convolution_op" in vars(model.layers[1])) == changed
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        return tape.gradient(loss, [model.layers[1].kernel.value, model.layers[1].log_sigma2.value])

    images = tf.constant(np.random.default_rng(0).normal(size=(6, 2, 2, 5)), tf.float32)
    for expected, found in zip(gradients(False), gradients(True), strict=True):
        assert np.any(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_training_step_uses_these_gradients_for_small_images_only():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(3, 3, padding="same", name="large")(inputs)
    x = keras.layers.Conv2D(3, 3, padding="same", name="small")(keras.layers.MaxPooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    steps((np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32)), batch_size=2)(model)
    assert ["convolution_op" in vars(model.get_layer(name)) for name in ("large", "small")] == [False, True]
