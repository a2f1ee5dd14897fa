"""The rules of keras.ops that split units into heads and join them, and that leave units alone: where, transposes and
repeats of positions."""

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.merge import Merge
from keras_sbp.utils.pruning.rules.positions import Positions
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    is_uniform,
    width,
)


class Heads(Rule):
    """A reshape of units into heads: a dimension goes in all heads or in none, and its units before go with it."""

    is_source = True
    regroups = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _splits(node, 0)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [varying[0].reshape(self.heads, -1).any(0)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        return [constant.reshape(*constant.shape[:-1], self.heads, -1)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.tile(kept[0], self.heads)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), count = kept, width(self.node.outputs[0])
        live = build.select(inputs[0], (np.arange(self.heads)[:, None] * count + units).ravel())
        scale = live.scale.reshape(self.heads, -1)
        if (scale != scale[0]).any():
            live, scale = build.apply_scale(live, self.op), np.ones_like(scale)
        shape = (-1, *self.node.outputs[0].shape[1:-1], len(units))
        return [build.live(keras.ops.reshape(live.tensor, shape), units, scale[0])]

    @property
    def heads(self) -> int:
        return self.node.outputs[0].shape[-2]


class Joined(Rule):
    """A reshape of heads into units: each dimension of each head is one."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _splits(node, 1)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.tile(varying[0], self.heads)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        whole = np.broadcast_to(constant, (*constant.shape[:-2], self.heads, constant.shape[-1]))
        return [whole.reshape(*constant.shape[:-2], -1)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [kept[0].reshape(self.heads, -1).any(0)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(pinned)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), count = inputs, width(self.node.input_tensors[0])
        units = (np.arange(self.heads)[:, None] * count + live.units).ravel()
        tensor = keras.ops.reshape(live.tensor, (-1, *self.node.outputs[0].shape[1:-1], len(units)))
        return [build.live(tensor, units, np.tile(live.scale, self.heads))]

    @property
    def heads(self) -> int:
        return self.node.input_tensors[0].shape[-2]


class Where(Merge):
    """A choice between two tensors, the same for all units."""

    names = frozenset(("Where",))

    @classmethod
    def matches(cls, node: Node) -> bool:
        return super().matches(node) and len(node.input_tensors) == 3 and width(node.input_tensors[0]) == 1

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        (condition, *units), (_, *values) = varying, constants
        differ = (values[0] != values[1]).reshape(-1, len(units[0])).any(0)
        return [np.logical_or.reduce([*units, condition.any() & differ])]


class Moved(Positions):
    """A transpose or repeat of positions."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        op, rank = node.operation, len(node.outputs[0].shape)
        if keras_private.is_keras_op(op, {"Transpose"}):
            axes = [axis % rank for axis in op.axes or range(rank)[::-1]]
            return rank > 2 and axes[0] == 0 and axes[-1] == rank - 1
        if keras_private.is_keras_op(op, {"Repeat"}):
            return op.axis is not None and 0 < op.axis % rank < rank - 1
        return False

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        if is_uniform(constant):
            return [constant]
        whole = at_all_positions(constant, self.node.input_tensors[0])
        return (
            [np.where(np.isnan(whole).reshape(-1, whole.shape[-1]).any(0), np.nan, 0)]
            if np.isnan(whole).any()
            else (super(Positions, self).constant_outputs([whole]))
        )


def _splits(node: Node, joined: int) -> bool:
    """Whether a reshape splits the last axis into two, or joins the last two axes to one."""
    if not keras_private.is_keras_op(node.operation, {"Reshape"}) or isinstance(node.operation, keras.Layer):
        return False
    shapes = [node.input_tensors[0].shape, node.outputs[0].shape]
    before, after = shapes[::-1] if joined else shapes
    if len(before) < 2 or len(after) != len(before) + 1 or None in before[1:] or None in after[1:]:
        return False
    return before[0] is None and before[1:-1] == after[1:-2] and before[-1] == after[-2] * after[-1]
