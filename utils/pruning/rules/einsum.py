"""The rules of sums of products by labels of axes: EinsumDense, and keras.ops that weight and sum up positions, as
attention does. The units are the last axis; other axes of a kernel, such as heads, are positions to them."""

import functools
import math
import re

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.kernel import Kernel, positions
from keras_sbp.utils.pruning.rules.norm import UNCONSTRAINED
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


class EinsumDense(Kernel):
    """EinsumDense that sums up the last axis of its input to the last of its output.

    Its kernels are (others, inputs, outputs) here, where the others are in the order of the equation.
    """

    kinds = (layers.EinsumDense,)

    def __init__(self, node: Node):
        super().__init__(node)
        self.source, self.weights, self.output = _labels(self.op.equation)
        self.others = "".join(label for label in self.weights if label not in self.source[-1] + self.output[-1])
        self.arranged = self.others + self.source[-1] + self.output[-1]

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        source, kernel, output = _labels(node.operation.equation)
        if source[-1] not in kernel or source[-1] in output or output[-1] not in kernel or output[-1] in source:
            return f"{node.operation.equation} does not sum up the last axis to the last"
        if set(source) - set(kernel + output):
            return f"{node.operation.equation} sums up positions"
        if set(node.operation.bias_axes or "") - set(kernel):
            return "its bias is not the same at all positions"
        return "LoRA is enabled" if node.operation.lora_enabled else super().obstacle(node)

    @property
    def has_bias(self) -> bool:
        return self.op.bias is not None

    @functools.cached_property
    def stored_kernel(self) -> Array:
        return np.transpose(np.asarray(self.op.kernel), [self.weights.index(label) for label in self.arranged])

    @functools.cached_property
    def bias(self) -> Array:
        """The bias at inference, (..., outputs), for the output's last axes."""
        bias = np.zeros(width(self.node.outputs[0]), np.float32)
        if self.has_bias:
            bias = bias + np.asarray(self.op.bias)
        if self.folds:
            offset = self.folds[0].offset(self.stored_kernel, -2)
            labels = [label for label in self.output if label in self.others] + [self.output[-1]]
            added = np.einsum(f"{self.others}{self.output[-1]}->{''.join(labels)}", offset)
            first = self.output.index(labels[0])
            shape = [added.shape[labels.index(label)] if label in labels else 1 for label in self.output[first:]]
            bias = bias + added.reshape(shape)
        return bias

    def can_fold(self, index: int) -> bool:
        return type(self) is EinsumDense and all(label in self.output for label in self.others)

    def linear(self, constant: Array) -> Array:
        summed = [-len(self.source) + axis for axis, label in enumerate(self.source) if label in self.others]
        if is_uniform(constant) and self.source[0] not in self.others:
            shape = list(constant.shape)
            for axis in summed:
                shape[axis] = self.node.input_tensors[0].shape[axis]
            whole = np.broadcast_to(constant, shape)
        else:
            whole = at_all_positions(constant, self.node.input_tensors[0])
        source, output = ("..." + labels[self._first() :] for labels in (self.source, self.output))
        return np.einsum(f"{source},{self.arranged}->{output}", whole, self.kernel)

    def _first(self) -> int:
        """Where the labels start that are not the batch's."""
        return 0 if "..." in self.op.equation else 1

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live, (units,) = build.select(inputs[0], build.used_units(self)), kept
        if build.is_shared(self.op):
            live = build.apply_scale(live, self.op)
        changes = {"output_shape": (*self.op.partial_output_shape[:-1], len(units))}
        if not build.inference:
            layer = build.clone(self, **changes)
            (tensor,) = keras_private.call(self.node, layer, [live.tensor])
            index = {self.source[-1]: live.units, self.output[-1]: units}
            sizes = dict(zip(self.weights, self.op.kernel.shape))
            of_kernel = np.ix_(*(index.get(label, range(sizes[label])) for label in self.weights))
            of_bias = ... if not self.has_bias or self.op.bias.shape[-1] == 1 else (..., units)
            build.set_weights(
                layer, self.op, [of_kernel, of_bias][: len(self.op.weights)], build.removed_constant(self)
            )
            return [build.live(tensor, units)]
        scale, bias = self.folded(build, units)
        if self.has_bias or bias.any():
            changes["bias_axes"] = "".join(label for label in self.output if label in self.weights)
        layer = build.clone(self, **changes, **UNCONSTRAINED)
        (tensor,) = keras_private.call(self.node, layer, [live.tensor])
        (kernel,) = self.smaller_kernels(live.units, live.scale, units, scale)
        weights = [np.transpose(kernel, [self.arranged.index(label) for label in self.weights])]
        if layer.bias is not None:
            weights.append(np.broadcast_to(bias, layer.bias.shape))
        layer.set_weights(weights)
        return [build.live(tensor, units)]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        shape = self.node.input_tensors[0].shape
        sizes = dict(zip(self.source[::-1], shape[::-1])) | dict(zip(self.weights, self.op.kernel.shape))
        sizes |= {self.source[-1]: inputs[0], self.output[-1]: outputs[0]}
        if self._first():
            sizes[self.source[0]] = 1
        elided = math.prod(size or 1 for size in shape[1 : len(shape) - len(self.source)])
        return elided * math.prod(size or 1 for size in sizes.values())


class Weighted(Rule):
    """Sums of products of a tensor and others, in which each unit of the tensor is one of the sums: einsum, matmul.

    Attributes:
        values: which input that tensor is.
        present: which of its units are constants other than 0.
    """

    unitwise = True
    present: Mask = np.False_

    def __init__(self, node: Node):
        super().__init__(node)
        self.values = _values(node)

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _values(node) is not None

    def joined_inputs(self) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        tensors = self.node.input_tensors
        return [tensors[self.values]], [*tensors[: self.values], *tensors[self.values + 1 :]]

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        units, constant = varying[self.values], constants[self.values]
        self.present = constant.reshape(-1, len(units)).any(0) & ~units
        return [units | self.present]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [np.zeros(width(self.node.outputs[0]))]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        used = [np.full(width(tensor), kept[0].any()) for tensor in self.node.input_tensors]
        used[self.values] = kept[0]
        return used

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        required = self.used_inputs(kept)
        required[self.values] = pinned[0] | kept[0] & self.present
        return required

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        lives = [live if n == self.values else build.apply_scale(live, self.op) for n, live in enumerate(inputs)]
        values = build.select(lives[self.values], kept[0])
        tensors = [live.tensor for live in lives]
        tensors[self.values] = values.tensor
        (tensor,) = self.call(tensors)
        return [values._replace(tensor=tensor)]

    def call(self, tensors: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        return keras_private.call(self.node, self.op, tensors)

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        one, other = (tensor.shape for tensor in self.node.input_tensors)
        if keras_private.is_keras_op(self.op, {"Matmul"}):
            return positions(self.node.outputs[0]) * (one[-1] or 1) * outputs[0]
        first, second, output = _labels(self.op.subscripts)
        sizes = dict(zip(first, one)) | dict(zip(second, other)) | {output[0]: 1, output[-1]: outputs[0]}
        return math.prod(size or 1 for size in sizes.values())


class DotProductAttention(Weighted):
    """keras.ops.dot_product_attention, whose values are filled up with zeros to the width that it had."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        known = keras_private.is_keras_op(node.operation, {"DotProductAttention"})
        return known and len({id(tensor) for tensor in node.input_tensors[:3]}) == 3

    def __init__(self, node: Node):
        Rule.__init__(self, node)
        args, kwargs = keras_private.arguments(node)
        value = [*args[2:3], kwargs.get("value")][0]
        self.values = next(n for n, tensor in enumerate(node.input_tensors) if tensor is value)

    def call(self, tensors: list[keras.KerasTensor]) -> list[keras.KerasTensor]:
        values, whole = tensors[self.values], width(self.node.input_tensors[self.values])
        count = values.shape[-1]
        missing = [(0, 0)] * (len(values.shape) - 1) + [(0, whole - count)]
        tensors[self.values] = keras.ops.pad(values, missing) if count < whole else values
        (tensor,) = super().call(tensors)
        return [tensor[..., :count] if count < whole else tensor]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        query, values = self.node.outputs[0].shape, self.node.input_tensors[self.values].shape
        return (query[1] or 1) * (values[1] or 1) * query[2] * (query[3] + values[3])


def _labels(equation: str) -> list[str]:
    """The labels of both inputs and the output of an equation, without an ellipsis."""
    return re.split(",|->", equation.replace("...", "").replace(" ", ""))


def _values(node: Node) -> int | None:
    """Which of two inputs has the units that the output has; None if none does, or it is another operation."""
    if len(node.input_tensors) != 2 or node.input_tensors[0] is node.input_tensors[1]:
        return None
    ranks = {len(tensor.shape) for tensor in node.input_tensors}
    if keras_private.is_keras_op(node.operation, {"Matmul"}):
        return 1 if len(ranks) == 1 and min(ranks) > 2 else None
    if not keras_private.is_keras_op(node.operation, {"Einsum"}) or "..." in node.operation.subscripts:
        return None
    if node.operation.subscripts.count(",") != 1 or "->" not in node.operation.subscripts:
        return None
    *sources, output = _labels(node.operation.subscripts)
    if not output or any(source[:1] != output[:1] or len(set(source)) < len(source) for source in sources):
        return None
    has = [output[-1] in source for source in sources]
    index = has.index(True) if sum(has) == 1 else None
    return index if index is not None and sources[index][-1] == output[-1] else None
