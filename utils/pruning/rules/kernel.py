"""The rules of layers whose units use all units of the input: dense layers and convolutions."""

import abc
import functools
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.norm import UNCONSTRAINED, scale_and_shift
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    axis_obstacle,
    is_uniform,
    is_unitwise,
    width,
)


class Kernel(Rule):
    """A layer that computes activation(kernel * inputs + bias).

    One with a method `sparse_kernel()` computes with that kernel at inference. A rule for a layer that computes its
    kernel overrides `kernel`: for inference, it becomes the stock layer with that kernel.

    Attributes:
        units_setting: the argument of the layer that says how many units it has.
    """

    units_setting: ClassVar[str]
    is_source = True

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        op = node.operation
        if isinstance(op.activation, keras.Layer) and (op.activation.weights or not op.activation.built):
            return "its activation has weights"
        return axis_obstacle(node)

    @functools.cached_property
    def kernel(self) -> Array:
        """The kernel at inference, (..., inputs, outputs), with a normalization of the inputs folded into it."""
        return self.folds[0].fold(self.stored_kernel, -2) if self.folds else self.stored_kernel

    @functools.cached_property
    def stored_kernel(self) -> Array:
        return keras.ops.convert_to_numpy(
            self.op.sparse_kernel() if hasattr(self.op, "sparse_kernel") else self.op.kernel
        )

    @functools.cached_property
    def bias(self) -> Array:
        """The bias at inference, (outputs,), with that of a folded normalization in it."""
        bias = np.asarray(self.op.bias, np.float32) if self.op.use_bias else np.zeros(width(self.node.outputs[0]))
        if self.folds:
            summed = self.stored_kernel.sum(axis=tuple(range(self.stored_kernel.ndim - 2)))
            bias = bias + self.folds[0].offset(summed, -2)
        return bias

    @functools.cached_property
    def connectivity(self) -> Array:
        """Whether a weight other than 0 leads from an input to an output: (inputs, outputs) bool."""
        if self.folds:  # the mean of all inputs is in each of its weights
            used = (self.stored_kernel != 0).any(axis=tuple(range(self.stored_kernel.ndim - 1)))
            return np.broadcast_to(used, self.stored_kernel.shape[-2:])
        return (self.kernel != 0).any(axis=tuple(range(self.kernel.ndim - 2)))

    @property
    def has_bias(self) -> bool:
        """Whether the layer itself has a bias."""
        return self.op.use_bias

    @abc.abstractmethod
    def linear(self, constant: Array) -> Array:
        """The layer without bias and activation for a constant input, (..., outputs); NaN where that depends on the
        size of an image which is not known."""

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return self._coupled(self.connectivity[varying[0]].any(0))

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        sums = self.linear(constants[0]) + self.bias
        return [keras.ops.convert_to_numpy(self.op.activation(keras.ops.convert_to_tensor(sums, "float32")))]

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        return self._coupled(kept[0])

    def _coupled(self, units: Mask) -> list[Mask]:
        """All units or none, if the activation mixes them."""
        return [units if is_unitwise(self.op.activation) else np.full_like(units, units.any())]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [self.connectivity[:, kept[0]].any(1)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return [np.zeros(len(self.connectivity), bool)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live, (units,) = build.select(inputs[0], build.used_units(self)), kept
        if build.is_shared(self.op):
            live = build.apply_scale(live, self.op)
        changes = self.smaller_settings(len(units))
        if not build.inference:
            layer = build.clone(self, **changes)
            tensor = layer(live.tensor)
            index = [self.weight_index(weight, live.units, units) for weight in self.op.weights]
            build.set_weights(layer, self.op, index, build.removed_constant(self))
            return [build.live(tensor, units)]
        # An adapter of low rank is part of the kernel.
        layer = build.clone(self, **changes, use_bias=True, lora_rank=None, lora_alpha=None, **UNCONSTRAINED)
        tensor = layer(live.tensor)
        scale, bias = self.folded(build, units)
        layer.set_weights([*self.smaller_kernels(live.units, live.scale, units, scale), bias])
        return [build.live(tensor, units)]

    def folded(self, build: Rebuilder, units: Indices) -> tuple[Array, Array]:
        """The scale of each output and its bias, with removed constants and a folded batch normalization in them."""
        scale, bias = np.ones(len(units)), build.removed_constant(self) + self.bias[..., units]
        if norm := build.folded_norm(self.node.outputs[0]):
            scale, shift = (values[units] for values in scale_and_shift(norm))
            bias = bias * scale + shift
        return scale, bias

    def smaller_settings(self, outputs: int) -> dict[str, int]:
        """Changes to the layer's config for this number of outputs."""
        return {self.units_setting: outputs}

    def weight_index(self, weight: keras.Variable, inputs: Indices, outputs: Indices) -> Any:
        """The index of these inputs and outputs in a weight of the layer."""
        if len(weight.shape) == 1:
            return outputs
        if weight is getattr(self.op, "lora_kernel_a", None):
            outputs = range(weight.shape[-1])
        elif weight is getattr(self.op, "lora_kernel_b", None):
            inputs = range(weight.shape[-2])
        return np.ix_(*map(range, weight.shape[:-2]), inputs, outputs)

    def smaller_kernels(self, inputs: Indices, in_scale: Array, outputs: Indices, out_scale: Array) -> list[Array]:
        """The layer's kernels from these inputs to these outputs, with the scales in them."""
        kernel = self.kernel[..., inputs, :][..., outputs]
        if self.folds:
            kernel = self.folds[0].unshifted(kernel, -2)
        return [kernel * in_scale[:, None] * out_scale]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        field = int(np.prod(getattr(self.op, "kernel_size", ())))
        return positions(self.node.outputs[0]) * field * inputs[0] * outputs[0]


class Dense(Kernel):
    """A dense layer: a kernel (inputs, outputs)."""

    kinds = (layers.Dense,)
    units_setting = "units"

    def can_fold(self, index: int) -> bool:
        return type(self) is Dense

    def linear(self, constant: Array) -> Array:
        return constant @ self.kernel


class Convolution(Kernel):
    """A convolution of one, two or three dimensions: a kernel (..., inputs, outputs)."""

    kinds = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
    units_setting = "filters"

    @classmethod
    def matches(cls, node: Node) -> bool:
        return super().matches(node) and getattr(node.operation, "groups", 1) == 1

    def can_fold(self, index: int) -> bool:
        return type(self) is Convolution and not self.has_borders()

    def linear(self, constant: Array) -> Array:
        rank = constant.ndim - 1
        if not constant.any():
            return np.zeros((1,) * rank + (width(self.node.outputs[0]),), np.float32)
        if is_uniform(constant) and not self.has_borders():
            field = [(size - 1) * rate + 1 for size, rate in zip(self.op.kernel_size, self.op.dilation_rate)]
            whole = np.broadcast_to(constant, (*field, constant.shape[-1]))
        else:
            whole = at_all_positions(constant, self.node.input_tensors[0])
        if np.isnan(whole).any():
            reached = np.isnan(whole).reshape(-1, len(self.connectivity)).any(0) @ self.connectivity
            return np.where(reached, np.nan, 0).reshape((1,) * rank + (-1,))
        return keras.ops.convert_to_numpy(self.convolve(whole[None].astype(np.float32)))[0]

    def has_borders(self) -> bool:
        """Whether the output for a uniform image differs near its border."""
        return self.op.padding != "valid" and max(self.op.kernel_size) > 1

    def convolve(self, x: Array) -> keras.KerasTensor:
        """The layer without bias and activation."""
        op, padding = self.op, self.op.padding
        if padding == "causal":
            x = np.pad(x, ((0, 0), ((op.kernel_size[0] - 1) * op.dilation_rate[0], 0), (0, 0)))
            padding = "valid"
        return keras.ops.conv(x, self.kernel, list(op.strides), padding, "channels_last", op.dilation_rate)

    def padded_settings(self, multiple: int) -> dict[str, int]:
        if not is_unitwise(self.op.activation):
            return {}
        return {self.units_setting: -(-width(self.node.outputs[0]) // multiple) * multiple}


class Transposed(Convolution):
    """A transposed convolution: its kernel is (..., outputs, inputs)."""

    kinds = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)

    @functools.cached_property
    def kernel(self) -> Array:
        return np.asarray(self.op.kernel).swapaxes(-1, -2)

    def has_borders(self) -> bool:
        return max(self.op.kernel_size) > 1 or max(self.op.strides) > 1

    def convolve(self, x: Array) -> keras.KerasTensor:
        op = self.op
        return keras.ops.conv_transpose(
            x, op.kernel, list(op.strides), op.padding, op.output_padding, "channels_last", op.dilation_rate
        )

    def weight_index(self, weight: keras.Variable, inputs: Indices, outputs: Indices) -> Any:
        return super().weight_index(weight, outputs, inputs) if len(weight.shape) > 1 else outputs

    def smaller_kernels(self, inputs: Indices, in_scale: Array, outputs: Indices, out_scale: Array) -> list[Array]:
        return [kernel.swapaxes(-1, -2) for kernel in super().smaller_kernels(inputs, in_scale, outputs, out_scale)]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        return positions(self.node.input_tensors[0]) * int(np.prod(self.op.kernel_size)) * inputs[0] * outputs[0]


class Grouped(Convolution):
    """A convolution in groups, each of which uses inputs of its own: a group is kept or goes as a whole."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        return super(Convolution, cls).matches(node) and node.operation.groups > 1

    @functools.cached_property
    def connectivity(self) -> Array:
        """See `Kernel`; within a group only."""
        within = super().connectivity
        count, outputs = self.op.groups, within.shape[1]
        of_output = np.arange(outputs) * count // outputs
        whole = within[None] & (of_output == np.arange(count)[:, None, None])
        return whole.reshape(-1, outputs)

    def kept_groups(self, kept: Mask) -> Mask:
        """(groups,) bool: whether units of the output that are kept belong to the group."""
        return kept.reshape(self.op.groups, -1).any(1)

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        (kept,) = super().coupled_outputs(kept)
        return [np.repeat(self.kept_groups(kept), self.kernel.shape[-1] // self.op.groups)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.repeat(self.kept_groups(kept[0]), self.kernel.shape[-2])]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def smaller_settings(self, outputs: int) -> dict[str, int]:
        return {"filters": outputs, "groups": outputs * self.op.groups // self.kernel.shape[-1]}

    def weight_index(self, weight: keras.Variable, inputs: Indices, outputs: Indices) -> Any:
        return (..., outputs)

    def smaller_kernels(self, inputs: Indices, in_scale: Array, outputs: Indices, out_scale: Array) -> list[Array]:
        count, per_group = self.kernel.shape[-1] // self.op.groups, self.kernel.shape[-2]
        own_scale = in_scale.reshape(-1, per_group)[np.arange(len(outputs)) // count]
        return [self.kernel[..., outputs] * own_scale.T * out_scale]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        return super().multiply_adds([self.op.kernel.shape[-2]], outputs)

    def padded_settings(self, multiple: int) -> dict[str, int]:
        return {}


def positions(tensor: keras.KerasTensor) -> int:
    """How many positions a tensor has, of those axes whose size is known."""
    return int(np.prod([size for size in tensor.shape[1:-1] if size]))
