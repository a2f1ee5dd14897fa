"""Layers that pruning leaves as they are, and whose multiply-adds are known all the same."""

import inspect
import math

import numpy as np
from keras import layers

from keras_sbp.utils.pruning.rules.kernel import positions
from keras_sbp.utils.pruning.rules.rule import Barrier, is_of, width


class Recurrent(Barrier):
    """An LSTM, GRU or simple recurrent layer: both kernels at each step."""

    KINDS = (layers.LSTM, layers.GRU, layers.SimpleRNN)

    @classmethod
    def fits(cls, node):
        return is_of(node.operation, cls.KINDS)

    def multiply_adds(self, inputs, outputs):
        cell = self.op.cell
        return positions(self.node.input_tensors[0]) * sum(
            int(np.prod(w.shape)) for w in (cell.kernel, cell.recurrent_kernel)
        )


class Attention(Barrier):
    """keras.layers.MultiHeadAttention: four projections, and the products of queries, keys and values."""

    @classmethod
    def fits(cls, node):
        return is_of(node.operation, layers.MultiHeadAttention)

    def multiply_adds(self, inputs, outputs):
        op, given = self.op, self.node.arguments
        given = inspect.signature(op.call).bind(*given.args, **given.kwargs).arguments
        query, value, key = given["query"], given["value"], given.get("key")
        queries, keys = positions(query), positions(value)
        heads, key_dim, value_dim = op.num_heads, op.key_dim, op.value_dim or op.key_dim
        key_width = width(value if key is None else key)
        projections = queries * heads * (width(query) * key_dim + value_dim * width(self.node.outputs[0]))
        projections += keys * heads * (key_width * key_dim + width(value) * value_dim)
        attended = math.prod(value.shape[axis] or 1 for axis in op._attention_axes)
        return projections + heads * queries * attended * (key_dim + value_dim)


class Unweighted(Barrier):
    """A look-up or a normalisation: no product of weights and units is summed up."""

    KINDS = (
        layers.Embedding,
        layers.GroupNormalization,
        layers.LayerNormalization,
        layers.BatchNormalization,
        layers.Normalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
    )

    @classmethod
    def fits(cls, node):
        return is_of(node.operation, cls.KINDS)

    def multiply_adds(self, inputs, outputs):
        return 0
