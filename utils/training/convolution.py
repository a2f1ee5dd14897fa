"""The gradient of a convolution's kernel as products of matrices: for small images faster than oneDNN's own."""

import keras
import numpy as np
import tensorflow as tf

# Up to how many places of an image the products are faster (docs/performance.md).
PLACES = 16


def by_products(model):
    """Let a model's convolutions of small images take their kernels' gradients as `kernel_gradient` does.

    Values are the same up to rounding. Convolutions with strides, gaps, groups or padding "valid" stay as they are, and
    all of them where there is a GPU.
    """
    if tf.config.get_visible_devices("GPU"):
        return
    for layer in model.layers:
        if _is_plain(layer) and layer.input.shape[1] * layer.input.shape[2] <= PLACES:
            layer.convolution_op = _convolution


def kernel_gradient(images, gradients, size):
    """The gradient of the kernel of a convolution with stride 1 and padding "same".

    One place of the kernel is one product: of the images and the outputs' gradients, where it leads from one to the
    other.

    Args:
        images: (batch, height, width, inputs), of any float dtype.
        gradients: of the outputs, (batch, height, width, units), of that dtype.
        size: of the kernel, (height, width).
    Returns:
        (*size, inputs, units), of that dtype.
    """
    shifts = [(row - (size[0] - 1) // 2, column - (size[1] - 1) // 2) for row, column in np.ndindex(*size)]
    products = [
        tf.matmul(_shifted(images, row, column), _shifted(gradients, -row, -column), transpose_a=True)
        for row, column in shifts
    ]
    return tf.reshape(tf.stack(products), (*size, images.shape[-1], gradients.shape[-1]))


def _shifted(images, rows, columns):
    """The places of images, as rows of a matrix, that are still images when moved so far up and to the left."""
    cuts = [slice(max(by, 0), max(length + min(by, 0), 0)) for by, length in zip((rows, columns), images.shape[1:3])]
    return tf.reshape(images[:, cuts[0], cuts[1]], (-1, images.shape[-1]))


def _is_plain(layer):
    plain = {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "same", "groups": 1, "data_format": "channels_last"}
    return isinstance(layer, keras.layers.Conv2D) and all(
        getattr(layer, name) == value for name, value in plain.items()
    )


def _convolution(images, kernel):
    return _differentiable(images, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def _differentiable(images, kernel):
    def backwards(gradients):
        towards_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=gradients, strides=[1] * 4, padding="SAME"
        )
        return towards_images, kernel_gradient(images, gradients, kernel.shape[:2])

    return tf.nn.conv2d(images, kernel, 1, "SAME"), backwards
