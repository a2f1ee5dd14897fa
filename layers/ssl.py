"""Structured sparsity learning (SSL): a group lasso on the weights into a unit and on the weights out of it.

W. Wen, C. Wu, Y. Wang, Y. Chen, H. Li: "Learning Structured Sparsity in Deep Neural Networks", NIPS 2016. Groups are
the filters and input channels of a convolution, and the columns and rows of a dense kernel. Gradient descent on the
lasso leaves groups small but not 0; its proximal step (Yuan and Lin, 2006), after each step of the optimizer, makes
them exactly 0.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


def soft_threshold(groups: tf.Tensor, threshold: tf.Tensor | float) -> tf.Tensor:
    """The proximal step of the group lasso: argmin over x of |x - g|^2 / 2 + threshold * |x|, for each group g.

    Args:
        groups: (..., groups), one group per index of the last axis.
        threshold: (groups,) or a scalar, >= 0.
    Returns:
        The groups, of the same shape, their norms reduced by the threshold, down to exactly 0.
    """
    norm = tf.sqrt(tf.reduce_sum(groups**2, axis=list(range(len(groups.shape) - 1))))
    return groups * tf.maximum(1 - tf.math.divide_no_nan(threshold, norm), 0.0)


def sgd(schedule: keras.optimizers.schedules.LearningRateSchedule, name: str) -> keras.optimizers.Optimizer:
    """SGD without momentum, for `training.Updates`.

    Momentum would carry a group away from 0 again. Adam's steps do not shrink with the gradient, so the lasso would
    weigh most where gradients are largest.
    """
    return keras.optimizers.SGD(schedule, name=f"sgd_{name}")


def proximal_step(strength: Callable[[keras.layers.Layer], float]) -> Callable[[keras.Model, tf.Tensor], None]:
    """The proximal step of `training.Updates`: soft-thresholds the columns of a model's kernels, then their rows.

    After SGD's steps, it minimizes the cross entropy plus strength * sqrt(n) * |g| for each group g of n weights. A
    column includes its bias, so that a unit without weights is exactly 0. The columns of the last layer form no groups,
    as its outputs are not units, nor does the row of a kernel with a single input (a gray image's channel, or the last
    row left). n counts the weights present: the lasso on a group weakens as units are removed from the network.

    Args:
        strength: the lasso's strength for a layer, >= 0, in nats.
    Returns:
        A function of the model, which it changes in place, and the learning rate, a scalar tensor.
    """

    def step(model, learning_rate):
        for layer in kernel_layers(model):
            kernel, threshold = layer.kernel.value, learning_rate * strength(layer)
            if layer is not model.layers[-1]:
                units = kernel.shape[-1]
                column = tf.concat([tf.reshape(kernel, (-1, units)), layer.bias.value[None]], 0)
                column = soft_threshold(column, threshold * column.shape[0] ** 0.5)
                kernel = tf.reshape(column[:-1], kernel.shape)
                layer.bias.assign(column[-1])
            if kernel.shape[-2] > 1:
                row = tf.experimental.numpy.moveaxis(kernel, -2, -1)
                row = soft_threshold(row, threshold * np.prod(row.shape[:-1]) ** 0.5)
                kernel = tf.experimental.numpy.moveaxis(row, -1, -2)
            layer.kernel.assign(kernel)

    return step


def shrink_rows(model: keras.Model, fraction: float) -> None:
    """The proximal step of a whole epoch on the rows of a model with batch normalization, in place.

    The norm of every row shrinks by a fraction of the mean norm of its layer's rows, down to exactly 0; then the kernel
    is rescaled to its previous norm. Batch normalization makes the network invariant to that norm, as to the norm of a
    filter: what counts are the norms of the rows relative to one another, that is how much of each unit a layer uses. A
    kernel whose norm shrank would only train faster. Once per epoch, because the noise of an epoch's gradients grows
    with the square root of their number, and the lasso with the number.

    Args:
        model: a model in training. Its rows are those of its dense and convolution layers except the first, whose
            inputs are the colors of an image and not units.
        fraction: in [0, 1). Rows that are 0 do not count in the mean, so the largest row is never removed.
    """
    for layer in kernel_layers(model)[1:]:
        kernel = np.moveaxis(np.asarray(layer.kernel), -2, -1)
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        shrunk = np.asarray(soft_threshold(tf.constant(kernel), fraction * norms[norms > 0].mean()))
        rescale = np.linalg.norm(norms) / np.linalg.norm(shrunk)
        layer.kernel.assign(rescale * np.moveaxis(shrunk, -1, -2))


def kernel_layers(model: keras.Model) -> list[keras.layers.Dense | keras.layers.Conv2D]:
    """The dense and convolution layers of a model."""
    return [layer for layer in model.layers if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D))]


def used_inputs(model: keras.Model) -> dict[str, np.ndarray]:
    """{layer's name: (inputs,) bool}: inputs with a nonzero weight, for `kernel_layers` except the first."""
    kernels = {layer.name: np.asarray(layer.kernel) for layer in kernel_layers(model)[1:]}
    return {name: kernel.any(axis=(*range(kernel.ndim - 2), -1)) for name, kernel in kernels.items()}


def live_units(model: keras.Model) -> dict[str, np.ndarray]:
    """{layer's name: (units,) bool}: units that at least one nonzero weight leads to."""
    kernels = {layer.name: np.asarray(layer.kernel) for layer in kernel_layers(model)}
    return {name: kernel.any(axis=tuple(range(kernel.ndim - 1))) for name, kernel in kernels.items()}
