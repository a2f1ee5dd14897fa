"""The rules of the model's inputs, and of layers without a pruning rule, which keep all their units."""

import inspect
import math
import weakref
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules import masks, tracing
from keras_sbp.utils.pruning.rules.kernel import positions
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    is_training,
    width,
)

# Operations without weights that sum up products all the same.
PRODUCTS = frozenset(
    "AdditiveAttention Attention Conv ConvTranspose Correlate DepthwiseConv Dot DotProductAttention Einsum Inner "
    "Matmul SeparableConv Tensordot Vdot".split()
)
# Examples of equal constants on which a call is tried; how far a GPU's sums may differ with their number.
EXAMPLES, ROUNDING = 3, 1e-3
# {node: its MACs}, as a trace takes tens of milliseconds.
_TRACED: weakref.WeakKeyDictionary[Node, int | None] = weakref.WeakKeyDictionary()


class Input(Rule):
    """An input of the model: all its units vary."""

    kinds = (layers.InputLayer,)
    fixed = True

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.ones(width(tensor), bool) for tensor in self.node.outputs]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return []

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return []

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        return [build.live(build.new_input[id(tensor)]) for tensor in self.node.outputs]


class Barrier(Rule):
    """An operation that the other rules do not know: all that it reads and outputs is kept, or it goes as a whole."""

    fixed = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        return not cls.kinds or super().matches(node)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        any_varies = any(units.any() for units in varying)
        return [np.full(width(tensor), any_varies) for tensor in self.node.outputs]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        unknown = [np.full(width(tensor), np.nan) for tensor in self.node.outputs]
        whole = [at_all_positions(constant, tensor) for constant, tensor in zip(constants, self.node.input_tensors)]
        if any(np.isnan(constant).any() for constant in whole) or is_training(self.node):
            return unknown
        try:
            one, several = (self.outputs_of(whole, examples) for examples in (1, EXAMPLES))
            return [each[0] for each in one] if all(map(_is_same, one, several)) else unknown
        except Exception:  # it may need more than one example, or raise anything
            return unknown

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.full_like(units, any(some.any() for some in kept)) for units in kept]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.full(width(tensor), kept[0].any()) for tensor in self.node.input_tensors]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        inputs = [build.apply_scale(live, self.op) for live in inputs]
        layer = build.clone(self)
        tensors = [live.tensor for live in inputs]
        outputs = keras_private.call(self.node, layer, tensors, **masks.implicit(self.node, tensors))
        build.set_weights(layer, self.op, [...] * len(getattr(self.op, "weights", [])))
        return [build.live(tensor) for tensor in outputs]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int | None:
        if not getattr(self.op, "weights", []) and type(self.op).__name__ not in PRODUCTS:
            return 0
        if self.node not in _TRACED:
            _TRACED[self.node] = self._trace()
        return _TRACED[self.node]

    def _trace(self) -> int | None:
        tensors = self.node.input_tensors
        return tracing.multiply_adds(
            lambda *inputs: keras_private.call(self.node, self.op, list(inputs)),
            [tensor.shape for tensor in tensors],
            [tensor.dtype for tensor in tensors],
        )


def _is_same(one, several):
    """Whether each of several examples has the value of one alone, up to rounding.

    If not, the call mixes examples, has outputs without an axis of them, or draws random numbers.
    """
    shapes = len(one) == 1 and several.shape == (EXAMPLES, *one.shape[1:])
    return shapes and np.allclose(several, one, atol=ROUNDING * np.abs(one).max(initial=0.0), rtol=0, equal_nan=True)


class Zeros(Barrier):
    """keras.ops.zeros_like of numbers for each example: 0 whatever its input is."""

    fixed = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        output = node.outputs[0]
        known = keras_private.is_keras_op(node.operation, {"ZerosLike"})
        return known and len(output.shape) > 1 and "float" in output.dtype

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.zeros(width(tensor), bool) for tensor in self.node.outputs]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [np.zeros(width(tensor)) for tensor in self.node.outputs]


class Steps(Barrier):
    """A layer that computes the same at each step of a sequence: recurrent ones, and TimeDistributed."""

    kinds = (layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN, layers.Bidirectional, layers.TimeDistributed)
    kinds += (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)

    def _trace(self) -> int | None:
        sequence = self.node.input_tensors[0]
        step, is_both = (sequence.shape[0], *sequence.shape[2:]), isinstance(self.op, layers.Bidirectional)
        each = (self.op.forward_layer, self.op.backward_layer) if is_both else (self.op,)
        found = [tracing.multiply_adds(_step(layer), [step], [sequence.dtype]) for layer in each]
        return None if None in found else (sequence.shape[1] or 1) * sum(found)


def _step(layer: keras.Layer) -> Callable:
    """What a layer computes of one step, (batch, ...), of a sequence."""
    if isinstance(layer, layers.TimeDistributed):
        return layer.layer
    return lambda inputs: layer.cell(inputs, layer.get_initial_state(1))


class Heads(Barrier):
    """keras.layers.MultiHeadAttention: four projections, and the products of queries, keys and values."""

    kinds = (layers.MultiHeadAttention,)

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        args, kwargs = keras_private.arguments(self.node)
        given = inspect.signature(self.op.call).bind(*args, **kwargs).arguments
        query, value, key = given["query"], given["value"], given.get("key")
        heads, key_dim, value_dim = self.op.num_heads, self.op.key_dim, self.op.value_dim or self.op.key_dim
        key_width = width(value if key is None else key)
        projections = positions(query) * (width(query) * key_dim + value_dim * width(self.node.outputs[0]))
        projections += positions(value) * (key_width * key_dim + width(value) * value_dim)
        attended = math.prod(value.shape[axis] or 1 for axis in keras_private.attention_axes(self.op))
        return heads * (projections + positions(query) * attended * (key_dim + value_dim))


class NoProducts(Barrier):
    """A look-up or a normalization: no products of weights and units are summed up."""

    kinds = (
        layers.Embedding,
        layers.GroupNormalization,
        layers.LayerNormalization,
        layers.BatchNormalization,
        layers.Normalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
    )

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        return 0
