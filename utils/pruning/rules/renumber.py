"""The rules of layers after which units have other numbers, or other positions: Flatten, Reshape, keras.ops.take."""

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    axis_obstacle,
    width,
)
from keras_sbp.utils.pruning.rules.unitwise import Unitwise


class Flatten(Rule):
    """Flatten, and Reshape to one axis: a unit at each position becomes a unit of its own."""

    kinds = (layers.Flatten, layers.Reshape)

    @classmethod
    def matches(cls, node: Node) -> bool:
        if not super().matches(node):
            return False
        shape = node.input_tensors[0].shape
        return None not in shape[1:] and len(shape) > 1 and len(node.outputs[0].shape) == 2

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return axis_obstacle(node)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.tile(varying[0], self._positions())]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [at_all_positions(constants[0], self.node.input_tensors[0]).ravel()]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [kept[0].reshape(self._positions(), -1).any(0)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(pinned)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), count, positions = inputs, width(self.node.input_tensors[0]), self._positions()
        units = (np.arange(positions)[:, None] * count + live.units).ravel()
        layer = build.new_layer(layers.Flatten, self.op)
        return [build.live(layer(live.tensor), units, np.tile(live.scale, positions))]

    def _positions(self) -> int:
        return width(self.node.outputs[0]) // width(self.node.input_tensors[0])


class Reshape(Unitwise):
    """A Reshape of the positions, after which the units are still the last axis."""

    kinds = (layers.Reshape,)
    passes_padding = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        if not super().matches(node):
            return False
        before, after = node.input_tensors[0].shape, node.outputs[0].shape
        return len(before) > 1 and before[-1] is not None and before[-1] == after[-1]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if constant.size == constant.shape[-1]:
            return [constant.reshape((1,) * (rank - 1) + (-1,))]
        return super().constant_outputs(constants)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,) = inputs
        layer = build.new_layer(layers.Reshape, self.op, (*self.op.target_shape[:-1], len(live.units)))
        return [live._replace(tensor=layer(live.tensor))]


class Take(Rule):
    """keras.ops.take of units by their indices, as `shrink` leaves it.

    Attributes:
        indices: of the units that it takes, counted from the first.
    """

    fixed = True

    def __init__(self, node: Node):
        super().__init__(node)
        self.indices = np.asarray(keras_private.arguments(node)[0][1], int) % width(node.input_tensors[0])

    @classmethod
    def matches(cls, node: Node) -> bool:
        op = node.operation
        return (
            keras_private.is_keras_op(op, {"Take"})
            and op.axis in (-1, len(node.outputs[0].shape) - 1)
            and len(node.input_tensors) == 1
            and node.input_tensors[0].shape[-1] is not None
            and np.ndim(keras_private.arguments(node)[0][1]) == 1
        )

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [varying[0][self.indices]]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [constants[0][..., self.indices]]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        used = np.zeros(width(self.node.input_tensors[0]), bool)
        np.logical_or.at(used, self.indices, kept[0])
        return [used]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(pinned)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), (units,) = inputs, kept
        index = np.searchsorted(live.units, self.indices[units])
        tensor = keras.ops.take(live.tensor, index.tolist(), axis=-1)
        return [build.live(tensor, units, live.scale[index])]
