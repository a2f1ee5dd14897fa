"""The rules of layers and operations that take or average positions, and leave each unit alone."""

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.merge import Merge
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    at_all_positions,
    axis_order,
    index_parts,
    is_kind,
    is_uniform,
    width,
)
from keras_sbp.utils.pruning.rules.unitwise import Unitwise


class MaskedMean(Unitwise):
    """The mean of those positions that a mask says."""

    kinds = (layers.GlobalAveragePooling1D,)
    carries_scale = True
    averages_positions = True
    passes_padding = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        return is_kind(node.operation, cls.kinds) and len(node.input_tensors) == 2

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return "data_format is channels_first" if node.operation.data_format == "channels_first" else None

    def joined_inputs(self) -> tuple[list, list]:
        return self.node.input_tensors[:1], []

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return varying[:1]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        constant, _ = constants
        known = constant.reshape(-1, constant.shape[-1])
        return [known[0] if is_uniform(constant) else np.where(known.any(0), np.nan, 0)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [kept[0], self._mask(kept)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return [pinned[0], self._mask(kept)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live, mask = inputs
        (tensor,) = keras_private.call(self.node, build.clone(self), [live.tensor, mask.tensor])
        return [live._replace(tensor=tensor)]

    def _mask(self, kept: list[Mask]) -> Mask:
        return np.full(width(self.node.input_tensors[1]), kept[0].any())


class Positions(Unitwise):
    """An index or a slice of positions, like that of a class token; another order of them, or repeats; and their mean,
    deviation, sum, largest or smallest by keras.ops."""

    orders = frozenset(("Flip", "Repeat", "Roll"))
    averages = frozenset(("Amax", "Amin", "Max", "Mean", "Min"))  # of one value that value
    reductions = averages | {"Std", "Sum", "Var"}
    carries_scale = True
    passes_padding = False

    def __init__(self, node: Node):
        super().__init__(node)
        # A sum has as many times the offset of a mean as there are positions.
        self.averages_positions = not keras_private.is_keras_op(self.op, self.reductions - {"Mean"})

    @classmethod
    def matches(cls, node: Node) -> bool:
        op, rank = node.operation, len(node.input_tensors[0].shape) if len(node.input_tensors) == 1 else 0
        if rank < 3 or isinstance(op, keras.Layer):
            return False
        if keras_private.is_keras_op(op, {"GetItem"}):
            first, *others = index_parts(node) or [None]
            return first == slice(None) and (len(others) < rank - 1 or others[-1] == slice(None))
        if order := axis_order(node):
            return order[-1] == rank - 1
        if keras_private.is_keras_op(op, cls.reductions | cls.orders):
            axes = [op.axis] if isinstance(op.axis, int) else list(op.axis or [])
            return bool(axes) and all(0 < axis % rank < rank - 1 for axis in axes)
        return False

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if is_uniform(constant) and not keras_private.is_keras_op(self.op, self.reductions - self.averages):
            return [constant.reshape((1,) * (rank - 1) + constant.shape[-1:])]
        whole = at_all_positions(constant, self.node.input_tensors[0])
        if None in self.node.input_tensors[0].shape[1:]:
            return [np.where(np.isnan(whole).reshape(-1, whole.shape[-1]).any(0), np.nan, 0)]
        return super().constant_outputs([whole.astype(np.float32)])

    def commutes_with_scale(self) -> bool:
        return not keras_private.is_keras_op(self.op, {"Var"})


class Chained(Merge):
    """A concatenation of positions, or a stack of tensors along an axis of positions."""

    names = frozenset(("Concatenate", "Stack"))

    @classmethod
    def matches(cls, node: Node) -> bool:
        rank = len(node.outputs[0].shape)
        return keras_private.is_keras_op(node.operation, cls.names) and 0 < node.operation.axis % rank < rank - 1

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        whole = [at_all_positions(constant, tensor) for constant, tensor in zip(constants, self.node.input_tensors)]
        if any(np.isnan(constant).any() for constant in whole):
            unknown = [np.isnan(c).reshape(-1, c.shape[-1]).any(0) for c in whole]
            return [np.where(np.logical_or.reduce(unknown), np.nan, 0)]
        join = np.stack if keras_private.is_keras_op(self.op, {"Stack"}) else np.concatenate
        return [join(whole, axis=self.op.axis % len(self.node.outputs[0].shape) - 1)]
