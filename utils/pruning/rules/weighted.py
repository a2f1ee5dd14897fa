"""The rules of layers with weights: dense and convolution layers, batch normalisation."""

import functools

import keras
import numpy as np

from utils.pruning.rules.rule import MIXING, Rule


class Weighted(Rule):
    """A Dense layer or a convolution: a kernel (..., inputs, outputs), and a bias.

    One with a method `sparse_kernel()` computes with that kernel at test time.
    """

    KINDS = (keras.layers.Dense, keras.layers.Conv2D)

    def __init__(self, node, multiplier=None):
        super().__init__(node, multiplier)
        self.pinned = self.op.activation in MIXING

    @functools.cached_property
    def kernel(self):
        """The kernel at test time."""
        return np.asarray(self.op.sparse_kernel() if hasattr(self.op, "sparse_kernel") else self.op.kernel)

    @functools.cached_property
    def leads(self):
        """Whether a weight other than zero leads from an input to an output: (inputs, outputs) bool."""
        return (self.kernel != 0).any(axis=tuple(range(self.kernel.ndim - 2)))

    def varies(self, varies):
        units = self.leads[varies[0]].any(0)
        return [np.full_like(units, units.any()) if self.pinned else units]

    def reads(self, keep):
        return [self.leads[:, keep[0]].any(1)]

    def pins(self, pinned):
        return [np.zeros(len(self.leads), bool)]

    def constant_part(self, constant, keep):
        """What inputs that do not vary add to the outputs that stay: (positions, outputs).

        Args:
            constant: the input, 0 where a unit is not to be counted.
            keep: (units,) bool, of the output.
        """
        kernel = self.kernel[..., keep]
        if isinstance(self.op, keras.layers.Dense):
            part = constant.astype(np.float32) @ kernel
        else:
            op, constant = self.op, constant.astype(np.float32)
            part = keras.ops.conv(constant[None], kernel, op.strides, op.padding, dilation_rate=op.dilation_rate)
        return np.asarray(part).reshape(-1, kernel.shape[-1])

    def rebuild(self, build, parts, keep):
        part, (keep,) = build.select(parts[0], build.living.read(self)), keep
        if build.is_shared(self.op):
            part = build.rescaled(part, self.op)
        units = {"units" if isinstance(self.op, keras.layers.Dense) else "filters": len(keep)}
        if build.plain:
            layer = build.like(self.op, **units, use_bias=True)
            tensor = layer(part.tensor)
            layer.set_weights(self._folded(build, part, keep))
        else:
            layer = build.like(self.op, **units)
            tensor = layer(part.tensor)
            # A weight's last axis is its unit, the one before that its input.
            index = [
                np.ix_(*map(range, weight.shape[:-2]), part.units, keep) if len(weight.shape) > 1 else keep
                for weight in self.op.weights
            ]
            build.take_weights(layer, self.op, index)
        return [build.part(tensor, keep)]

    def _folded(self, build, part, keep):
        """Kernel and bias with all that is constant in them: factors, dead units, batch normalisation behind them."""
        kernel = self.kernel[..., part.units, :][..., keep] * part.factor[:, None]
        bias = np.asarray(self.op.bias)[keep] if self.op.use_bias else 0.0
        bias = bias + build.living.constant_part(self)[0]
        norm = build.norms.get(id(self.node.outputs[0]))
        if norm:
            scale, offset = affine(norm)
            kernel, bias = kernel * scale[keep], bias * scale[keep] + offset[keep]
        return [kernel, bias]

    def multiply_adds(self, inputs, outputs):
        positions = int(np.prod(self.node.outputs[0].shape[1:-1]))
        return positions * int(np.prod(self.op.kernel.shape[:-2])) * inputs[0] * outputs[0]


class Normalisation(Rule):
    """Batch normalisation: part of the layer before it in a plain network, if nothing else reads that."""

    KINDS = keras.layers.BatchNormalization

    def rebuild(self, build, parts, keep):
        if id(self.node.input_tensors[0]) in build.norms:
            return parts
        part = build.rescaled(parts[0], self.op)
        layer = build.like(self.op)
        tensor = layer(part.tensor)
        build.take_weights(layer, self.op, [part.units] * len(self.op.weights))
        return [part._replace(tensor=tensor)]


def affine(norm):
    """What batch normalisation multiplies a unit by and adds to it at test time: two (units,)."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    scale = (np.asarray(norm.gamma) if norm.scale else 1.0) / deviation
    return scale, (np.asarray(norm.beta) if norm.center else 0.0) - np.asarray(norm.moving_mean) * scale
