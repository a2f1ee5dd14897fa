"""The rules of sums and products of units with constants: numbers, arrays, Rescaling, Normalization."""

from typing import Any

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
    at_all_positions,
    is_uniform,
    width,
)
from keras_sbp.utils.pruning.rules.unitwise import Unitwise


class Scalar(Unitwise):
    """keras.ops.add, multiply and the like of a tensor and a number, or an array of numbers."""

    names = frozenset(("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"))
    passes_padding = False  # the array has the old width, and 1 / 0 is no 0

    @classmethod
    def matches(cls, node: Node) -> bool:
        if not keras_private.is_keras_op(node.operation, cls.names) or isinstance(node.operation, keras.Layer):
            return False
        operands = _operands(node)
        arrays = [operand for operand in operands if not isinstance(operand, keras.KerasTensor)]
        shape = node.outputs[0].shape
        return len(operands) == 2 and len(arrays) == 1 and node.input_tensors[0].shape == shape and len(shape) > 1

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (found,) = super().constant_outputs(constants)
        return [found if is_uniform(found) else at_all_positions(found, self.node.outputs[0])]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live = build.apply_scale(inputs[0], self.op)

        def part(operand: Any) -> Any:
            if isinstance(operand, keras.KerasTensor):
                return live.tensor
            shape, whole = np.shape(operand), width(self.node.outputs[0])
            return keras.ops.convert_to_numpy(operand)[..., live.units] if shape[-1:] == (whole,) else operand

        return [live._replace(tensor=self.op(*map(part, _operands(self.node))))]


class Affine(Unitwise):
    """A scale and an offset for each unit: Rescaling, Normalization.

    It stays a layer. In the kernel after it, the 1 / 255 of an image would make weights of 0.004, which training at the
    usual learning rates destroys. What it reads may be integers, also where Keras's symbolic dtype says otherwise.
    """

    kinds = (layers.Rescaling, layers.Normalization)
    passes_padding = False

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        op, count = node.operation, width(node.outputs[0])
        numbers = (op.scale, op.offset) if isinstance(op, layers.Rescaling) else (op.mean, op.variance)
        if any(x is None for x in numbers):
            return "not adapted yet"
        if any(np.size(x) not in (1, count) or np.size(x) != np.atleast_1d(x).shape[-1] for x in numbers):
            return "its numbers are not one for each unit"
        return super().obstacle(node)

    def numbers(self) -> tuple[Array, Array]:
        """The scale and the offset of each unit, (units,)."""
        op, count = self.op, width(self.node.outputs[0])
        if isinstance(op, layers.Normalization):
            scale = 1 / np.maximum(np.sqrt(keras.ops.convert_to_numpy(op.variance)), keras.config.epsilon())
            offset = -keras.ops.convert_to_numpy(op.mean) * scale
            if op.invert:
                scale, offset = 1 / scale, keras.ops.convert_to_numpy(op.mean)
        else:
            scale, offset = keras.ops.convert_to_numpy(op.scale), keras.ops.convert_to_numpy(op.offset)
        return tuple(np.broadcast_to(np.ravel(numbers), count).astype(float) for numbers in (scale, offset))

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [varying[0] & (self.numbers()[0] != 0)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        scale, offset = self.numbers()
        return [constants[0] * scale + offset]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), (scale, offset) = inputs, self.numbers()
        scale, offset = scale[live.units] * live.scale, offset[live.units]
        layer = build.new_layer(layers.Rescaling, self.op, scale.tolist(), offset.tolist())
        return [build.live(layer(live.tensor), live.units)]


def _operands(node: Node) -> list:
    args, kwargs = keras_private.arguments(node)
    return [*args, *kwargs.values()]
