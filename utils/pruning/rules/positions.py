"""The rules of layers and operations that take or average positions, and leave each unit alone."""

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.merge import Merge
from keras_sbp.utils.pruning.rules.renumber import Reshape
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    at_all_positions,
    is_kind,
    is_training,
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
    """An index or a slice of positions, like that of a class token, and a mean of them by keras.ops."""

    carries_scale = True
    averages_positions = True
    passes_padding = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        op, rank = node.operation, len(node.input_tensors[0].shape) if len(node.input_tensors) == 1 else 0
        if rank < 3:
            return False
        if keras_private.is_keras_op(op, {"GetItem"}):
            args, kwargs = keras_private.arguments(node)
            return _leaves_units([*args[1:], *kwargs.values()][0], rank)
        if keras_private.is_keras_op(op, {"Mean"}):
            axes = [op.axis] if isinstance(op.axis, int) else list(op.axis or [])
            return bool(axes) and all(0 < axis % rank < rank - 1 for axis in axes)
        return False

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return "called with training=True" if is_training(node) else None

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if is_uniform(constant):
            return [constant.reshape((1,) * (rank - 1) + constant.shape[-1:])]
        if None in self.node.input_tensors[0].shape[1:]:
            return [np.full(constant.shape[-1], np.nan)]
        return super().constant_outputs([np.broadcast_to(constant, self.node.input_tensors[0].shape[1:])])

    def commutes_with_scale(self) -> bool:
        return True


class ReshapedPositions(Reshape):
    """A reshape of positions by keras.ops."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        if not keras_private.is_keras_op(node.operation, {"Reshape"}) or isinstance(node.operation, keras.Layer):
            return False
        before, after = node.input_tensors[0].shape, node.outputs[0].shape
        same = before[-1] is not None and before[-1] == after[-1] and len(after) > 1
        return same and before[0] is None and after[0] is None and None not in after[1:]

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,) = inputs
        shape = (-1, *self.node.outputs[0].shape[1:-1], len(live.units))
        return [live._replace(tensor=keras.ops.reshape(live.tensor, shape))]

    def commutes_with_scale(self) -> bool:
        return True


class Chained(Merge):
    """A concatenation of positions."""

    names = frozenset(("Concatenate",))

    @classmethod
    def matches(cls, node: Node) -> bool:
        rank = len(node.outputs[0].shape)
        return keras_private.is_keras_op(node.operation, cls.names) and 0 < node.operation.axis % rank < rank - 1

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        whole = [at_all_positions(constant, tensor) for constant, tensor in zip(constants, self.node.input_tensors)]
        if any(np.isnan(constant).any() for constant in whole):
            unknown = [np.isnan(c).reshape(-1, c.shape[-1]).any(0) for c in whole]
            return [np.where(np.logical_or.reduce(unknown), np.nan, 0)]
        return [np.concatenate(whole, axis=self.node.operation.axis % len(self.node.outputs[0].shape) - 1)]


def _leaves_units(key: object, rank: int) -> bool:
    """Whether an index takes positions only: neither examples, nor units, nor positions that are not one number or one
    slice."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(part is Ellipsis for part in parts):
        before = next(n for n, part in enumerate(parts) if part is Ellipsis)
        parts[before : before + 1] = [slice(None)] * (rank - len(parts) + 1)
    if any(not isinstance(part, (int, slice)) for part in parts) or not parts or parts[0] != slice(None):
        return False
    return len(parts) < rank or (len(parts) == rank and parts[-1] == slice(None))
