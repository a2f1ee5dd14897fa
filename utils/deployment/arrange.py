"""A network for use: the same function, arranged so that a CPU runs it faster."""

import collections
import math
from typing import Any

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.lazy import tf
from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.graph import Tensors
from keras_sbp.utils.pruning.rules import Node

# Floats in a vector register (AVX-512): a convolution takes as long with fewer filters.
LANES = 16
# Of a convolution that `_widened` knows.
PLAIN = {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "valid", "groups": 1, "data_format": "channels_last"}


def for_cpu(model: keras.Model, litert: bool = False) -> keras.Model:
    """A copy of a network that computes the same up to rounding, faster.

    A convolution of few filters computes several neighboring columns at once, as more filters over fewer columns: the
    register is full, though some of the products are with zeros. Units are selected as rows of the transpose, which
    copies whole rows.

    Args:
        model: functional or Sequential, of stock layers and ops.
        litert: for LiteRT, which copies what it reshapes: units are selected before Flatten.
    Returns:
        A model of stock layers and ops; with `litert` one to export, which Keras cannot load again.
    Raises:
        ValueError: the model has no graph.
    """
    model = graph.flatten_nested(model)
    calls = collections.Counter(id(node.operation) for node in graph.nodes(model))

    def faster(node: Node, tensors: Tensors) -> Tensors | None:
        op, rule = node.operation, rules.of(node)
        if isinstance(rule, rules.Take) and len(tensors[0].shape) == 2:
            select = _select_before_flatten if litert else _select
            return [select(tensors[0], rule.indices.tolist(), op.name)]
        if rules.is_kind(op, keras.layers.Conv2D) and calls[id(op)] == 1 and (columns := _columns(node)) > 1:
            return [_widened(op, tensors[0], columns)]
        return None

    return graph.clone(model, faster)


def _select(x: keras.KerasTensor, units: list[int], name: str) -> keras.KerasTensor:
    x = keras.ops.take(keras.ops.transpose(x), units, axis=0)
    # Through a third axis: otherwise TensorFlow merges the transpose into the product with the next kernel, which it
    # then computes more slowly.
    return keras.layers.Flatten(name=f"{name}_rows")(keras.ops.transpose(keras.ops.expand_dims(x, -1), (1, 0, 2)))


def _select_before_flatten(x: keras.KerasTensor, units: list[int], name: str) -> keras.KerasTensor:
    """See `_select`; from the input of Flatten, if it is Flatten that made x."""
    made = keras_private.producer(x)
    if rules.is_kind(made.operation, keras.layers.Flatten) and made.operation.data_format == "channels_last":
        (x,) = made.input_tensors
    return _Rows(np.stack(np.unravel_index(units, x.shape[1:]), -1).astype(np.int32), name=f"{name}_rows")(x)


class _Rows(keras.layers.Layer):
    """Units (batch, n) of a tensor (batch, ...), by their indices in it: (n, axes)."""

    def __init__(self, indices: np.ndarray, **settings: Any):
        super().__init__(autocast=False, **settings)
        self.indices = indices

    def call(self, x: Any) -> Any:
        return tf.transpose(tf.gather_nd(tf.transpose(x, (*range(1, len(x.shape)), 0)), self.indices))


def _columns(node: Node) -> int:
    """How many columns of its output a convolution should compute at once: 1 if it is best as it is."""
    conv, columns = node.operation, [node.input_tensors[0].shape[2], node.outputs[0].shape[2]]
    if any(getattr(conv, name) != value for name, value in PLAIN.items()) or None in node.outputs[0].shape[1:]:
        return 1
    if not rules.is_unitwise(conv.activation):
        return 1
    common = math.gcd(*columns)
    return max(n for n in range(1, common + 1) if common % n == 0 and (n == 1 or n * conv.filters <= LANES))


def _widened(conv: keras.layers.Conv2D, x: keras.KerasTensor, columns: int) -> keras.KerasTensor:
    """The output of a convolution, computed with `columns` times the filters over as many times fewer columns."""
    height, width, inputs = x.shape[1:]
    kernel, bias = np.asarray(conv.kernel), np.asarray(conv.bias) if conv.use_bias else np.zeros(conv.filters)
    rows, taps, _, filters = kernel.shape
    size = (height - rows + 1, width - taps + 1, filters)
    # Row, tap, input -> column, filter: the kernel of each column is shifted by its index.
    wide = np.zeros((rows, taps - 1 + columns, inputs, columns, filters), np.float32)
    for column in range(columns):
        wide[:, column : column + taps, :, column] = kernel
    wide = wide.reshape(rows, -1, columns * inputs, columns * filters)
    layer = keras.layers.Conv2D(columns * filters, wide.shape[:2], activation=conv.activation, name=conv.name)
    x = layer(keras.ops.reshape(x, (-1, height, width // columns, columns * inputs)))
    layer.set_weights([wide, np.tile(bias, columns)])
    return keras.ops.reshape(x, (-1, *size))
