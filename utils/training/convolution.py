"""The gradient of a convolution's kernel as matrix products: faster than oneDNN's own kernels for small images."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

# The largest image, in positions, for which matrix products are faster (docs/performance.md).
MAX_POSITIONS = 16


def use_matmul_kernel_gradients(model: keras.Model) -> None:
    """Make a model's convolutions of small images compute their kernels' gradients by `kernel_gradient`, in place.

    Values are equal up to rounding. Convolutions with strides, dilation, groups or padding "valid" stay as they are;
    with a GPU, all of them do.
    """
    if tf.config.get_visible_devices("GPU"):
        return
    for layer in model.layers:
        if _is_plain(layer) and layer.input.shape[1] * layer.input.shape[2] <= MAX_POSITIONS:
            layer.convolution_op = _convolution


def kernel_gradient(images: tf.Tensor, gradients: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """The gradient of the kernel of a convolution with stride 1 and padding "same".

    Each position of the kernel is one matrix product: of the shifted images and the gradients of the outputs, over the
    positions where they overlap.

    Args:
        images: (batch, height, width, inputs), of any float dtype.
        gradients: of the outputs, (batch, height, width, units), of the same dtype.
        size: of the kernel, (height, width).
    Returns:
        (*size, inputs, units), of the same dtype.
    """
    shifts = [(row - (size[0] - 1) // 2, column - (size[1] - 1) // 2) for row, column in np.ndindex(*size)]
    products = [
        tf.matmul(_shift(images, row, column), _shift(gradients, -row, -column), transpose_a=True)
        for row, column in shifts
    ]
    return tf.reshape(tf.stack(products), (*size, images.shape[-1], gradients.shape[-1]))


def _shift(images, rows, columns):
    """Images moved up by `rows` and left by `columns`, without what leaves them: (positions, units)."""
    cuts = [slice(max(by, 0), max(length + min(by, 0), 0)) for by, length in zip((rows, columns), images.shape[1:3])]
    return tf.reshape(images[:, cuts[0], cuts[1]], (-1, images.shape[-1]))


def _is_plain(layer):
    plain = {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "same", "groups": 1, "data_format": "channels_last"}
    return isinstance(layer, keras.layers.Conv2D) and all(
        getattr(layer, name) == value for name, value in plain.items()
    )


def _convolution(images, kernel):
    return _convolution_with_gradient(images, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def _convolution_with_gradient(images, kernel):
    def gradient(upstream):
        by_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream, strides=[1] * 4, padding="SAME"
        )
        return by_images, kernel_gradient(images, upstream, kernel.shape[:2])

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradient
