"""Layers that pruning leaves as they are, and whose multiply-adds are known all the same."""

import numpy as np
from keras import layers

from utils.pruning.rules.rule import Barrier, width
from utils.pruning.rules.weighted import positions


class Recurrent(Barrier):
    """An LSTM, GRU or simple recurrent layer: both kernels at each step."""

    KINDS = (layers.LSTM, layers.GRU, layers.SimpleRNN)

    @classmethod
    def fits(cls, node):
        return isinstance(node.operation, cls.KINDS)

    def multiply_adds(self, inputs, outputs):
        cell = self.op.cell
        return positions(self.node.input_tensors[0]) * sum(
            int(np.prod(w.shape)) for w in (cell.kernel, cell.recurrent_kernel)
        )


class Attention(Barrier):
    """keras.layers.MultiHeadAttention: four projections, and the products of queries, keys and values."""

    @classmethod
    def fits(cls, node):
        return isinstance(node.operation, layers.MultiHeadAttention)

    def multiply_adds(self, inputs, outputs):
        op, (query, value, *key) = self.op, self.node.input_tensors
        queries, keys = positions(query), positions(value)
        heads, key_dim, value_dim = op.num_heads, op.key_dim, op.value_dim or op.key_dim
        key_width = width(key[0]) if key else width(value)
        projections = queries * heads * (width(query) * key_dim + value_dim * width(self.node.outputs[0]))
        projections += keys * heads * (key_width * key_dim + width(value) * value_dim)
        return projections + heads * queries * keys * (key_dim + value_dim)


class Unweighted(Barrier):
    """A look-up or a normalisation: no product of weights and units is summed up."""

    KINDS = (
        layers.Embedding,
        layers.GroupNormalization,
        layers.LayerNormalization,
        layers.BatchNormalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
    )

    @classmethod
    def fits(cls, node):
        return isinstance(node.operation, cls.KINDS)

    def multiply_adds(self, inputs, outputs):
        return 0
