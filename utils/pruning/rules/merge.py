"""The rules of layers that bring several tensors together: sums, products, concatenations."""

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Mask, Rebuilder, Rule, is_kind, width


class Merge(Rule):
    """A sum, difference, mean, maximum or minimum of tensors, unit by unit."""

    kinds = (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract)
    # Of keras.ops, and the sum in keras.applications.InceptionResNetV2.
    names = frozenset(("Add", "Maximum", "Minimum", "Subtract", "CustomScaleLayer"))
    unitwise = True
    carries_scale = True
    passes_padding = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        shapes = [tensor.shape for tensor in node.input_tensors]
        known = is_kind(node.operation, cls.kinds) or keras_private.is_keras_op(node.operation, cls.names)
        return known and len(shapes) > 1 and len({len(shape) for shape in shapes}) == 1 and len(shapes[0]) > 1

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.logical_or.reduce(np.broadcast_arrays(*varying))]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        # An input may have one unit for all of the output's.
        units = kept[0]
        return [units if width(tensor) == len(units) else np.array([units.any()]) for tensor in self.node.input_tensors]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        # A unit of the sum needs its summands, also the constant ones.
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), tensors = kept, self.node.input_tensors
        # An input of one unit for all of them has nothing to select.
        whole = width(self.node.outputs[0])
        lives = [live if width(x) < whole else build.select(live, units) for live, x in zip(inputs, tensors)]
        if build.inference and isinstance(self.op, layers.Add):
            others = [live for live, tensor in zip(lives, tensors) if not build.is_zero(tensor)]
            # A zero may still be what gives the sum its positions or its units.
            shape = (*self.node.outputs[0].shape[1:-1], len(units))
            lives = others if any(live.tensor.shape[1:] == shape for live in others) else lives
            if len(lives) == 1:
                return lives
        lives, scale = self.common_scale(build, lives, units)
        tensors = [live.tensor for live in lives]
        operation = build.clone(self)
        if len(tensors) == len(self.node.input_tensors):
            return [build.live(keras_private.call(self.node, operation, tensors)[0], units, scale)]
        return [build.live(operation(tensors), units, scale)]

    def common_scale(self, build: Rebuilder, lives: list[LiveTensor], units: Indices) -> tuple[list[LiveTensor], Array]:
        """The inputs without the scale that can be applied after the layer instead, and that scale."""
        scales = [live.scale for live in lives]
        if all(len(scale) == len(units) and np.array_equal(scale, scales[0]) for scale in scales):
            return lives, scales[0]
        return [build.apply_scale(live, self.op) for live in lives], np.ones(len(units))


class Product(Merge):
    """A product of tensors, unit by unit: 0 where one of them is 0 at all positions."""

    kinds = (layers.Multiply,)
    names = frozenset(("Multiply",))

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        zero = [~units & ~constant.any(tuple(range(constant.ndim - 1))) for units, constant in zip(varying, constants)]
        return [super().varying_outputs(varying, constants)[0] & ~np.logical_or.reduce(np.broadcast_arrays(*zero))]

    def common_scale(self, build: Rebuilder, lives: list[LiveTensor], units: Indices) -> tuple[list[LiveTensor], Array]:
        return lives, np.prod(np.broadcast_arrays(*(live.scale for live in lives)), axis=0)

    def joined_inputs(self) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        # One factor is enough: the others only scale its units.
        same, _ = super().joined_inputs()
        shape = self.node.outputs[0].shape
        main = next((tensor for tensor in same if tensor.shape[1:] == shape[1:]), same[0])
        return [main], [tensor for tensor in self.node.input_tensors if tensor is not main]


class Concatenate(Rule):
    """Tensors side by side: their units one after the other."""

    carries_scale = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        op, rank = node.operation, len(node.outputs[0].shape)
        return keras_private.is_keras_op(op, {"Concatenate"}) and rank > 1 and op.axis in (-1, rank - 1)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.concatenate(varying)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        rank = max(constant.ndim for constant in constants)
        sizes = [max(constant.shape[axis] for constant in constants) for axis in range(rank - 1)]
        return [np.concatenate([np.broadcast_to(c, (*sizes, c.shape[-1])) for c in constants], -1)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return np.split(kept[0], self._ends())

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return np.split(pinned[0], self._ends())

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), starts = kept, [0, *self._ends()]
        lives = []
        for live, start, tensor in zip(inputs, starts, self.node.input_tensors):
            own = units[(units >= start) & (units < start + width(tensor))] - start
            if len(own):
                lives.append(build.select(live, own))
        scale = np.concatenate([live.scale for live in lives])
        tensors = [live.tensor for live in lives]
        if len(lives) == 1:
            return [build.live(tensors[0], units, scale)]
        if isinstance(self.op, keras.Layer):
            return [build.live(build.new_layer(layers.Concatenate, self.op)(tensors), units, scale)]
        # Unlike the layer it passes on no mask.
        return [build.live(keras.ops.concatenate(tensors, axis=-1), units, scale)]

    def _ends(self) -> Array:
        return np.cumsum([width(tensor) for tensor in self.node.input_tensors])[:-1]


class Where(Merge):
    """A choice between two tensors, the same for all units."""

    names = frozenset(("Where",))

    @classmethod
    def matches(cls, node: Node) -> bool:
        return super().matches(node) and len(node.input_tensors) == 3 and width(node.input_tensors[0]) == 1

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        (condition, *units), (_, *values) = varying, constants
        differ = (values[0] != values[1]).reshape(-1, width(self.node.outputs[0])).any(0)
        return [np.logical_or.reduce(np.broadcast_arrays(*units, condition.any() & differ))]
