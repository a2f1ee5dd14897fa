"""The rules of what sums up over units: sums, dot products, and Attention and AdditiveAttention, which weight values by
what a query and keys score together."""

import functools
import inspect
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules import masks
from keras_sbp.utils.pruning.rules.kernel import positions
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    is_kind,
    is_training,
    width,
)


class Sum(Rule):
    """The sum of all units, by keras.ops.

    Attributes:
        summed_inputs: which inputs are summed up.
        is_product: whether it is one of products.
        nonzero, varying: which units of these are not 0, and which vary; None until that is known.
    """

    summed_inputs: tuple[int, ...] = (0,)
    is_product: bool = True
    nonzero: list[Mask] | None = None
    varying: list[Mask] | None = None

    @classmethod
    def matches(cls, node: Node) -> bool:
        if not keras_private.is_keras_op(node.operation, {"Sum"}):
            return False
        rank, axes = len(node.input_tensors[0].shape), list(node.operation.axis or [])
        return rank > 1 and [axis % rank for axis in axes] == [rank - 1]

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        self.remember(varying, constants)
        is_varying = any(varying[number].any() for number in self.summed_inputs)
        return [np.full(width(self.node.outputs[0]), is_varying)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        tensors = self.node.input_tensors
        return super().constant_outputs([at_all_positions(c, x) for c, x in zip(constants, tensors)])

    def remember(self, varying: list[Mask], constants: list[Array]) -> None:
        """Find `nonzero` and `varying`."""
        self.varying = [varying[number] for number in self.summed_inputs]
        fixed = [constants[number] for number in self.summed_inputs]
        self.nonzero = [
            units | (constant != 0).reshape(-1, len(units)).any(0) for units, constant in zip(self.varying, fixed)
        ]

    def summed(self) -> Mask:
        """Which units the sum depends on."""
        if self.nonzero is None:
            return np.ones(width(self.node.input_tensors[self.summed_inputs[0]]), bool)
        # A unit that is 0 in one factor adds nothing to a sum of products, and may add something to other sums.
        return (np.logical_and if self.is_product else np.logical_or).reduce(self.nonzero)

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return self.masks(kept, [self.summed() for _ in self.summed_inputs])

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        summed = self.summed()
        if self.varying is None:
            return self.masks(kept, [np.zeros_like(summed) for _ in self.summed_inputs])
        if not summed.any():
            return self.masks(kept, [np.arange(len(summed)) == 0 for _ in self.summed_inputs])
        return self.masks(kept, [summed & ~units for units in self.varying])

    def masks(self, kept: list[Mask], summed: list[Mask]) -> list[Mask]:
        """A mask for each input: these of the ones that are summed up; whether there is an output for the others."""
        found = [np.full(width(tensor), kept[0].any()) for tensor in self.node.input_tensors]
        for number, mask in zip(self.summed_inputs, summed):
            found[number] = mask & kept[0].any()
        return found

    def selected(self, build: Rebuilder, inputs: list[LiveTensor]) -> tuple[Indices, list[keras.KerasTensor]]:
        """The units that are summed up, and the tensors with these."""
        lives = [inputs[number] for number in self.summed_inputs]
        units = functools.reduce(np.intersect1d, [live.units for live in lives])
        return units, [build.apply_scale(build.select(live, units), self.op).tensor for live in lives]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        _, tensors = self.selected(build, inputs)
        (tensor,) = keras_private.call(self.node, build.clone(self), tensors)
        return [build.select(build.live(tensor), kept[0])]


class Dot(Sum):
    """Products of the units of two tensors, summed up: unit i of one belongs to unit i of the other."""

    kinds: Any = (layers.Dot,)
    summed_inputs = (0, 1)

    @classmethod
    def matches(cls, node: Node) -> bool:
        return is_kind(node.operation, cls.kinds)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        axes, ranks = node.operation.axes, [len(tensor.shape) for tensor in node.input_tensors]
        axes = [axes, axes] if isinstance(axes, int) else axes
        if [axis % rank for axis, rank in zip(axes, ranks)] != [rank - 1 for rank in ranks]:
            return "sums up another axis than the last"
        return None

    @property
    def is_product(self) -> bool:
        """Whether it is a sum of products, and not also one of squares, to divide by."""
        return not self.op.normalize

    def tied(self) -> list[list[keras.KerasTensor]]:
        return [[self.node.input_tensors[number] for number in self.summed_inputs]]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        one, other = (self.node.input_tensors[number] for number in self.summed_inputs)
        return positions(one) * positions(other) * min(inputs[number] for number in self.summed_inputs)


class Scored(Dot):
    """Attention and AdditiveAttention: means of values, weighted by what their keys and a query score together.

    Attributes:
        values: which input the values are.
        present: which of their units are constants other than 0.
    """

    kinds = (layers.AdditiveAttention, layers.Attention)
    present: Mask = np.False_

    def __init__(self, node: Node):
        super().__init__(node)
        (given, *_), _ = keras_private.arguments(node)
        self.values, self.summed_inputs = 1, (0, len(given) - 1)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        if len(node.outputs) > 1:
            return "returns its scores"
        return "called with training=True" if is_training(node) else None

    @property
    def is_product(self) -> bool:
        # Otherwise of tanh(query + key).
        return type(self.op) is layers.Attention and self.op.score_mode == "dot"

    def tied(self) -> list[list[keras.KerasTensor]]:
        return [*super().tied(), [self.node.input_tensors[self.values], *self.node.outputs]]

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        self.remember(varying, constants)
        units = varying[self.values]
        self.present = (constants[self.values] != 0).reshape(-1, len(units)).any(0) & ~units
        return [units | self.present]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [np.zeros(width(self.node.outputs[0]))]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return self._with_values(super().used_inputs(kept), kept[0])

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self._with_values(super().required_inputs(kept, pinned), pinned[0] | kept[0] & self.present)

    def _with_values(self, masks: list[Mask], units: Mask) -> list[Mask]:
        # The values may be the keys.
        masks[self.values] = masks[self.values] | units if self.values in self.summed_inputs else units
        # The same tensor may be several inputs.
        tensors = self.node.input_tensors
        return [np.logical_or.reduce([m for m, y in zip(masks, tensors) if y is x]) for x in tensors]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        units, (query, key) = self.selected(build, inputs)
        values = build.select(inputs[self.values], kept[0])
        tensors = [live.tensor for live in inputs]
        args, kwargs = keras_private.arguments(self.node, tensors)
        settings = {**inspect.signature(self.op.call).bind(*args, **kwargs).arguments}
        settings.pop("inputs")
        settings |= masks.implicit(self.node, tensors)
        layer = build.clone(self)
        tensor = layer([query, values.tensor, key], **settings)
        build.set_weights(layer, self.op, [units if len(weight.shape) else ... for weight in self.op.weights])
        return [values._replace(tensor=tensor)]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        one, other = (self.node.input_tensors[number] for number in self.summed_inputs)
        return super().multiply_adds(inputs, outputs) + positions(one) * positions(other) * outputs[0]
