"""Structured sparsity learning: a group lasso on the weights that lead to a unit and on those that lead from it.

W. Wen, C. Wu, Y. Wang, Y. Chen, H. Li: "Learning Structured Sparsity in Deep Neural Networks", NIPS 2016. Groups are
the filters and input channels of a convolution, the columns and rows of a dense kernel. The lasso's derivative would
leave groups small; its proximal step (Yuan and Lin, 2006), taken after the optimiser's, makes them exactly 0.
"""

import keras
import numpy as np
import tensorflow as tf


def soft_threshold(groups, threshold):
    """The proximal step of the group lasso: argmin over x of |x - g|^2 / 2 + threshold * |x|, for each group g.

    Args:
        groups: tensor (..., groups), a group to an index of the last axis, which `threshold` is broadcast to.
    Returns:
        A tensor of that shape: every group shorter by the threshold, or exactly 0.
    """
    norm = tf.sqrt(tf.reduce_sum(groups**2, axis=list(range(len(groups.shape) - 1))))
    return groups * tf.maximum(1 - tf.math.divide_no_nan(threshold, norm), 0.0)


def sgd(rate, group):
    """The optimiser for `training.Updates`: no momentum, which would carry a group away from 0 again, nor Adam, whose
    steps are as long where a gradient is small, so that the lasso would weigh most where gradients are largest."""
    return keras.optimizers.SGD(rate, name=f"sgd_{group}")


def proximal(strength):
    """The proximal step of `training.Updates`, taken after the optimiser's: on a model's columns, then on its rows.

    With it, SGD minimises the cross entropy plus, for each group g of n weights, strength * sqrt(n) * |g|. A column
    takes its bias along, so that a unit without weights is exactly 0. The model's outputs are no units, nor is the one
    channel of grey images; nor the last row that a layer has left. n counts the weights that the groups have left:
    where units have been taken out, it is less, and the lasso on the others is weaker.

    Args:
        strength: from a layer to its strength >= 0, in nats.
    Returns:
        From a model and the learning rate, a scalar tensor, to nothing.
    """

    def step(model, learning_rate):
        for layer in weighted(model):
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


def shorten_rows(model, share):
    """The proximal step of a whole epoch, for a network with batch normalisation: on the rows of a model, in place.

    Every row becomes shorter by a share of the mean length of its layer's rows, or exactly 0; then the kernel gets its
    own length back. Batch normalisation makes that length free, and with it the length of a filter: what counts is how
    long the rows are beside one another, that is how much of each unit a layer reads. A kernel that grew shorter would
    only learn faster. Once an epoch, since the noise of an epoch's gradients grows with the root of their number, and
    the lasso with the number. The colors of an image are no units.

    Args:
        model: a model in training; its rows are those of its dense and convolution layers but the first.
        share: in [0, 1). Rows that are 0 do not count in the mean: the longest one is never taken.
    """
    for layer in weighted(model)[1:]:
        kernel = np.moveaxis(np.asarray(layer.kernel), -2, -1)
        length = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        shorter = np.asarray(soft_threshold(tf.constant(kernel), share * length[length > 0].mean()))
        whole = np.linalg.norm(length) / np.linalg.norm(shorter)
        layer.kernel.assign(whole * np.moveaxis(shorter, -1, -2))


def weighted(model):
    """The dense and convolution layers of a model."""
    return [layer for layer in model.layers if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D))]


def read(model):
    """{layer's name: (inputs,) bool, whether a weight other than 0 leads from the unit to the layer}, but the first's."""
    kernels = {layer.name: np.asarray(layer.kernel) for layer in weighted(model)[1:]}
    return {name: kernel.any(axis=(*range(kernel.ndim - 2), -1)) for name, kernel in kernels.items()}


def alive(model):
    """{layer's name: (units,) bool, whether a weight other than 0 leads to the unit}."""
    kernels = {layer.name: np.asarray(layer.kernel) for layer in weighted(model)}
    return {name: kernel.any(axis=tuple(range(kernel.ndim - 1))) for name, kernel in kernels.items()}
