"""The rules of convolutions that take each unit alone over its positions: depthwise, and separable."""

import functools

import keras
import numpy as np
from keras import layers

from keras_sbp.utils.pruning.rules.kernel import UNCONSTRAINED, Convolution, positions
from keras_sbp.utils.pruning.rules.rule import treats_units_alone, width


class Depthwise(Convolution):
    """A depthwise convolution: a kernel (..., inputs, multiplier); each input has as many outputs of its own."""

    KINDS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)

    def __init__(self, node, multiplier=None):
        super().__init__(node, multiplier)
        self.each = self.op.depth_multiplier
        self.aligned = self.each == 1 and treats_units_alone(self.op.activation)

    @functools.cached_property
    def leads(self):
        inputs = width(self.node.input_tensors[0])
        own = (self.kernel != 0).any(axis=tuple(range(self.kernel.ndim - 2)))
        return np.eye(inputs, dtype=bool)[:, :, None].repeat(self.each, 2).reshape(inputs, -1) & own.ravel()

    def stays(self, keep):
        (keep,) = super().stays(keep)
        return [keep.reshape(-1, self.each).any(1).repeat(self.each)]

    def reads(self, keep):
        return [keep[0].reshape(-1, self.each).any(1)]

    def pins(self, keep, pinned):
        return self.reads(keep)

    def convolve(self, x):
        op = self.op
        return keras.ops.depthwise_conv(x, self.kernel, op.strides, op.padding, dilation_rate=op.dilation_rate)

    def rebuild(self, build, parts, keep):
        (keep,), op = keep, self.op
        inputs = np.unique(keep // self.each)
        part = build.select(parts[0], inputs)
        if not build.plain or build.is_shared(op):
            part = build.rescaled(part, op)
            layer = build.like(op)
            tensor = layer(part.tensor)
            kernel, bias = (..., inputs, slice(None)), keep
            build.take_weights(layer, op, [kernel, bias][: len(op.weights)])
            return [build.part(tensor, keep)]
        layer = build.like(op, use_bias=True, **UNCONSTRAINED)
        tensor = layer(part.tensor)
        scale, offset = self.folded(build, keep)
        kernel = self.kernel[..., inputs, :] * part.factor[:, None] * scale.reshape(-1, self.each)
        layer.set_weights([kernel, offset])
        return [build.part(tensor, keep)]

    def multiply_adds(self, inputs, outputs):
        return positions(self.node.outputs[0]) * int(np.prod(self.op.kernel_size)) * outputs[0]


class Separable(Convolution):
    """A separable convolution: a depthwise one, and a dense layer at each position of what it gives."""

    KINDS = (layers.SeparableConv1D, layers.SeparableConv2D)

    @functools.cached_property
    def kernel(self):
        """Both kernels as that of one convolution."""
        depthwise, pointwise = np.asarray(self.op.depthwise_kernel), np.asarray(self.op.pointwise_kernel)
        inputs, each = depthwise.shape[-2:]
        return np.einsum("...im,imo->...io", depthwise, pointwise.reshape(inputs, each, -1))

    @functools.cached_property
    def leads(self):
        depthwise, pointwise = np.asarray(self.op.depthwise_kernel), np.asarray(self.op.pointwise_kernel)
        inputs, each = depthwise.shape[-2:]
        own = (depthwise != 0).any(axis=tuple(range(depthwise.ndim - 2)))
        return (own[..., None] & (pointwise.reshape(inputs, each, -1) != 0)).any(1)

    def index(self, weight, inputs, outputs):
        if weight is self.op.depthwise_kernel:
            return (..., inputs, slice(None))
        if weight is self.op.pointwise_kernel:
            return np.ix_(*map(range, weight.shape[:-2]), self._between(inputs), outputs)
        return outputs

    def smaller(self, inputs, factor, outputs, scale):
        depthwise, pointwise = np.asarray(self.op.depthwise_kernel), np.asarray(self.op.pointwise_kernel)
        pointwise = pointwise[..., self._between(inputs), :][..., outputs] * scale
        return [depthwise[..., inputs, :] * factor[:, None], pointwise]

    def multiply_adds(self, inputs, outputs):
        between = inputs[0] * self.op.depth_multiplier
        return positions(self.node.outputs[0]) * between * (int(np.prod(self.op.kernel_size)) + outputs[0])

    def _between(self, inputs):
        each = self.op.depth_multiplier
        return (inputs[:, None] * each + np.arange(each)).ravel()
