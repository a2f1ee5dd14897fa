"""A network for use: the same function, arranged so that a CPU runs it faster."""

import collections
import math

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.pruning import graph, rules

# Floats in a vector register (AVX-512): a convolution takes as long with fewer filters.
LANES = 16


def fast(model, litert=False):
    """A copy of a network that computes the same up to rounding.

    A convolution of few filters computes several neighbouring columns at once, as more filters over fewer columns
    (`_columns`): the register is full, and some products are with zeros, which `counting.multiply_adds` is not asked about.
    Units are selected as rows of the transpose, which is a copy of rows and not of single numbers.

    Args:
        model: functional or Sequential, of stock layers and ops.
        litert: for LiteRT, which copies what it reshapes: units are selected from what Flatten reads.
    Returns:
        A Keras model, of stock layers and ops; with `litert` one to export, which Keras cannot load again.
    Raises:
        ValueError: the model is a subclass of keras.Model without a graph.
    """

    model = graph.flatten_nested(model)
    places = collections.Counter(id(node.operation) for node in graph.nodes(model))

    def instead(node, tensors):
        op = node.operation
        if rules.is_take(node) and len(tensors[0].shape) == 2:
            select = _selected_before_flatten if litert else _selected
            return [select(tensors[0], rules.taken(node).tolist(), op.name)]
        if rules.is_of(op, keras.layers.Conv2D) and places[id(op)] == 1 and (columns := _columns(node)) > 1:
            return [_wide(op, tensors[0], columns)]
        return None

    return graph.clone(model, instead)


def _selected(x, units, name):
    x = keras.ops.take(keras.ops.transpose(x), units, axis=0)
    # By way of a third axis, or else TensorFlow puts the transpose into the product with the next kernel, as the slower
    # product it has for that.
    return keras.layers.Flatten(name=f"{name}_rows")(keras.ops.transpose(keras.ops.expand_dims(x, -1), (1, 0, 2)))


def _selected_before_flatten(x, units, name):
    """As `_selected`: of what Flatten reads, if it is Flatten that made x."""
    flatten, node, _ = x._keras_history
    if rules.is_of(flatten, keras.layers.Flatten) and flatten.data_format == "channels_last":
        (x,) = flatten._inbound_nodes[node].input_tensors
    return _Rows(np.stack(np.unravel_index(units, x.shape[1:]), -1).astype(np.int32), name=f"{name}_rows")(x)


class _Rows(keras.layers.Layer):
    """Units (batch, n) of a tensor (batch, ...), from their places in it: (n, axes)."""

    def __init__(self, places, **settings):
        super().__init__(autocast=False, **settings)
        self.places = places

    def call(self, x):
        return tf.transpose(tf.gather_nd(tf.transpose(x, (*range(1, len(x.shape)), 0)), self.places))


def _columns(node):
    """How many columns of its output a convolution should compute as one: 1 if it is best as it is."""
    conv, columns = node.operation, [node.input_tensors[0].shape[2], node.outputs[0].shape[2]]
    plain = {
        "strides": (1, 1),
        "dilation_rate": (1, 1),
        "padding": "valid",
        "groups": 1,
        "data_format": "channels_last",
    }
    if any(getattr(conv, name) != value for name, value in plain.items()) or None in node.outputs[0].shape[1:]:
        return 1
    if not rules.treats_units_alone(conv.activation):
        return 1
    common = math.gcd(*columns)
    return max(n for n in range(1, common + 1) if common % n == 0 and (n == 1 or n * conv.filters <= LANES))


def _wide(conv, x, columns):
    """The output of a convolution from its input, computed as so many times as many filters over as fewer columns."""
    height, width, inputs = x.shape[1:]
    kernel, bias = np.asarray(conv.kernel), np.asarray(conv.bias) if conv.use_bias else np.zeros(conv.filters)
    rows, taps, _, filters = kernel.shape
    size = (height - rows + 1, width - taps + 1, filters)
    # Row, tap, column within a position, input -> column, filter: a column's kernel is shifted by its place.
    wide = np.zeros((rows, taps - 1 + columns, inputs, columns, filters), np.float32)
    for column in range(columns):
        wide[:, column : column + taps, :, column] = kernel
    wide = wide.reshape(rows, -1, columns * inputs, columns * filters)
    layer = keras.layers.Conv2D(columns * filters, wide.shape[:2], activation=conv.activation, name=conv.name)
    x = layer(keras.ops.reshape(x, (-1, height, width // columns, columns * inputs)))
    layer.set_weights([wide, np.tile(bias, columns)])
    return keras.ops.reshape(x, (-1, *size))
