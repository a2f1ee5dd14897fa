"""The rules of convolutions that treat each unit alone over its positions: depthwise and separable."""

import functools
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.kernel import Convolution, positions
from keras_sbp.utils.pruning.rules.norm import UNCONSTRAINED
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Mask, Rebuilder, is_unitwise, width


class Depthwise(Convolution):
    """A depthwise convolution: a kernel (..., inputs, multiplier), and for each input that many outputs of its own."""

    kinds = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)

    def __init__(self, node: Node):
        super().__init__(node)
        self.depth = self.op.depth_multiplier
        self.unitwise = self.depth == 1 and is_unitwise(self.op.activation)

    @functools.cached_property
    def connectivity(self) -> Array:
        inputs = width(self.node.input_tensors[0])
        own = (self.kernel != 0).any(axis=tuple(range(self.kernel.ndim - 2)))
        return np.eye(inputs, dtype=bool)[:, :, None].repeat(self.depth, 2).reshape(inputs, -1) & own.ravel()

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        (kept,) = super().coupled_outputs(kept)
        return [kept.reshape(-1, self.depth).any(1).repeat(self.depth)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [kept[0].reshape(-1, self.depth).any(1)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def convolve(self, x: Array) -> keras.KerasTensor:
        op = self.op
        return keras.ops.depthwise_conv(x, self.kernel, op.strides, op.padding, "channels_last", op.dilation_rate)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), op = kept, self.op
        used = np.unique(units // self.depth)
        live = build.select(inputs[0], used)
        if not build.inference or build.is_shared(op):
            live = build.apply_scale(live, op)
            layer = build.clone(self)
            tensor = layer(live.tensor)
            kernel, bias = (..., used, slice(None)), units
            build.set_weights(layer, op, [kernel, bias][: len(op.weights)])
            return [build.live(tensor, units)]
        layer = build.clone(self, use_bias=True, **UNCONSTRAINED)
        tensor = layer(live.tensor)
        scale, bias = self.folded(build, units)
        kernel = self.kernel[..., used, :] * live.scale[:, None] * scale.reshape(-1, self.depth)
        layer.set_weights([kernel, bias])
        return [build.live(tensor, units)]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        return positions(self.node.outputs[0]) * int(np.prod(self.op.kernel_size)) * outputs[0]

    def padded_settings(self, multiple: int) -> dict[str, int]:
        return {}


class Separable(Convolution):
    """A separable convolution: a depthwise one, then a dense layer at each position of its output."""

    kinds = (layers.SeparableConv1D, layers.SeparableConv2D)

    @functools.cached_property
    def kernel(self) -> Array:
        """Both kernels as that of one convolution."""
        depthwise, pointwise = self._kernels()
        return np.einsum("...im,imo->...io", depthwise, pointwise.reshape(*depthwise.shape[-2:], -1))

    @functools.cached_property
    def connectivity(self) -> Array:
        depthwise, pointwise = self._kernels()
        own = (depthwise != 0).any(axis=tuple(range(depthwise.ndim - 2)))
        return (own[..., None] & (pointwise.reshape(*own.shape, -1) != 0)).any(1)

    def weight_index(self, weight: keras.Variable, inputs: Indices, outputs: Indices) -> Any:
        if weight is self.op.depthwise_kernel:
            return (..., inputs, slice(None))
        if weight is self.op.pointwise_kernel:
            return np.ix_(*map(range, weight.shape[:-2]), self._between(inputs), outputs)
        return outputs

    def smaller_kernels(self, inputs: Indices, in_scale: Array, outputs: Indices, out_scale: Array) -> list[Array]:
        depthwise, pointwise = self._kernels()
        pointwise = pointwise[..., self._between(inputs), :][..., outputs] * out_scale
        return [depthwise[..., inputs, :] * in_scale[:, None], pointwise]

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        between = inputs[0] * self.op.depth_multiplier
        return positions(self.node.outputs[0]) * between * (int(np.prod(self.op.kernel_size)) + outputs[0])

    def _kernels(self) -> tuple[Array, Array]:
        return np.asarray(self.op.depthwise_kernel), np.asarray(self.op.pointwise_kernel)

    def _between(self, inputs: Indices) -> Indices:
        """The outputs of the depthwise convolution of these inputs."""
        depth = self.op.depth_multiplier
        return (inputs[:, None] * depth + np.arange(depth)).ravel()
