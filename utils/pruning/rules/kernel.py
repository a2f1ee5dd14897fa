"""The rules of layers whose units read all units: dense layers and convolutions; and batch normalisation after them."""

import functools

import keras
import numpy as np
from keras import layers

from keras_sbp.layers.batch_normalization import BatchNormalization
from keras_sbp.utils.pruning.rules.rule import Rule, is_even, spread, treats_units_alone, width

# A kernel with theta or batch normalisation in it is not the one that they were meant for.
UNCONSTRAINED = dict.fromkeys(f"{name}_constraint" for name in ("kernel", "bias", "depthwise", "pointwise", "gamma"))


class Weighted(Rule):
    """A Dense layer: a kernel (inputs, outputs), and a bias.

    One with a method `sparse_kernel()` computes with that kernel at test time.
    """

    KINDS = layers.Dense
    UNITS = "units"
    aligned = False

    @classmethod
    def fits(cls, node):
        op = node.operation
        if not super().fits(node) or getattr(op, "lora_enabled", False):
            return False
        learned = isinstance(op.activation, keras.Layer) and (op.activation.weights or not op.activation.built)
        return not learned

    @functools.cached_property
    def kernel(self):
        """The kernel at test time, (..., inputs, outputs)."""
        return np.asarray(self.op.sparse_kernel() if hasattr(self.op, "sparse_kernel") else self.op.kernel)

    @functools.cached_property
    def leads(self):
        """Whether a weight other than zero leads from an input to an output: (inputs, outputs) bool."""
        return (self.kernel != 0).any(axis=tuple(range(self.kernel.ndim - 2)))

    def linear(self, constant):
        """What a constant input sums up to in the outputs, (..., outputs); NaN where it depends on the image's size."""
        return constant @ self.kernel

    def varies(self, varies, constants):
        return self._together(self.leads[varies[0]].any(0))

    def constants(self, constants):
        sums = self.linear(constants[0]) + (np.asarray(self.op.bias, np.float32) if self.op.use_bias else 0.0)
        return [np.asarray(self.op.activation(keras.ops.convert_to_tensor(sums, "float32")))]

    def stays(self, keep):
        return self._together(keep[0])

    def _together(self, units):
        """All or none of the units, where the activation mixes them."""
        return [units if treats_units_alone(self.op.activation) else np.full_like(units, units.any())]

    def reads(self, keep):
        return [self.leads[:, keep[0]].any(1)]

    def pins(self, keep, pinned):
        return [np.zeros(len(self.leads), bool)]

    def rebuild(self, build, parts, keep):
        part, (keep,) = build.select(parts[0], build.living.read(self)), keep
        if build.is_shared(self.op):
            part = build.rescaled(part, self.op)
        changes = self.sizes(len(keep))
        if not build.plain:
            layer = build.like(self.op, **changes)
            tensor = layer(part.tensor)
            index = [self.index(weight, part.units, keep) for weight in self.op.weights]
            build.take_weights(layer, self.op, index, build.living.constant_part(self)[0])
            return [build.part(tensor, keep)]
        layer = build.like(self.op, **changes, use_bias=True, **UNCONSTRAINED)
        tensor = layer(part.tensor)
        scale, offset = self.folded(build, keep)
        layer.set_weights([*self.smaller(part.units, part.factor, keep, scale), offset])
        return [build.part(tensor, keep)]

    def folded(self, build, keep):
        """What the outputs are multiplied by, and their biases: with the constants of dead units in them, and with the
        batch normalisation that becomes part of the layer."""
        scale, offset = np.ones(len(keep)), build.living.constant_part(self)[0]
        if self.op.use_bias:
            offset = offset + np.asarray(self.op.bias)[keep]
        if norm := build.norms.get(id(self.node.outputs[0])):
            scale, shift = (values[keep] for values in affine(norm))
            offset = offset * scale + shift
        return scale, offset

    def sizes(self, outputs):
        """The settings of the layer with so many outputs."""
        return {self.UNITS: outputs}

    def index(self, weight, inputs, outputs):
        """Where in a weight of the layer those of these inputs and outputs are."""
        if len(weight.shape) == 1:
            return outputs
        return np.ix_(*map(range, weight.shape[:-2]), inputs, outputs)

    def smaller(self, inputs, factor, outputs, scale):
        """The kernels from these inputs, each times its factor, to these outputs, each times its scale."""
        return [self.kernel[..., inputs, :][..., outputs] * factor[:, None] * scale]

    def multiply_adds(self, inputs, outputs):
        return positions(self.node.outputs[0]) * inputs[0] * outputs[0]


class Convolution(Weighted):
    """A convolution of one, two or three dimensions: a kernel (..., inputs, outputs)."""

    KINDS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
    UNITS = "filters"

    @classmethod
    def fits(cls, node):
        return super().fits(node) and getattr(node.operation, "groups", 1) == 1

    def linear(self, constant):
        rank = constant.ndim - 1
        if not constant.any():
            return np.zeros((1,) * rank + (width(self.node.outputs[0]),), np.float32)
        if is_even(constant) and not self.has_borders():
            field = [(size - 1) * rate + 1 for size, rate in zip(self.op.kernel_size, self.op.dilation_rate)]
            whole = np.broadcast_to(constant, (*field, constant.shape[-1]))
        else:
            whole = spread(constant, self.node.input_tensors[0])
        if np.isnan(whole).any():
            reached = np.isnan(whole).reshape(-1, len(self.leads)).any(0) @ self.leads
            return np.where(reached, np.nan, 0).reshape((1,) * rank + (-1,))
        return np.asarray(self.convolve(whole[None].astype(np.float32)))[0]

    def has_borders(self):
        """Whether what is alike everywhere comes to something else at the image's border."""
        return self.op.padding != "valid" and max(self.op.kernel_size) > 1

    def convolve(self, x):
        """The layer without bias and activation."""
        op, padding = self.op, self.op.padding
        if padding == "causal":
            x = np.pad(x, ((0, 0), ((op.kernel_size[0] - 1) * op.dilation_rate[0], 0), (0, 0)))
            padding = "valid"
        return keras.ops.conv(x, self.kernel, list(op.strides), padding, dilation_rate=op.dilation_rate)

    def multiply_adds(self, inputs, outputs):
        return super().multiply_adds(inputs, outputs) * int(np.prod(self.op.kernel_size))


class Transposed(Convolution):
    """A transposed convolution: its kernel is (..., outputs, inputs)."""

    KINDS = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)

    @functools.cached_property
    def kernel(self):
        return np.asarray(self.op.kernel).swapaxes(-1, -2)

    def has_borders(self):
        return max(self.op.kernel_size) > 1 or max(self.op.strides) > 1

    def convolve(self, x):
        op = self.op
        return keras.ops.conv_transpose(
            x, op.kernel, list(op.strides), op.padding, op.output_padding, dilation_rate=op.dilation_rate
        )

    def index(self, weight, inputs, outputs):
        return super().index(weight, outputs, inputs) if len(weight.shape) > 1 else outputs

    def smaller(self, inputs, factor, outputs, scale):
        return [kernel.swapaxes(-1, -2) for kernel in super().smaller(inputs, factor, outputs, scale)]

    def multiply_adds(self, inputs, outputs):
        return positions(self.node.input_tensors[0]) * int(np.prod(self.op.kernel_size)) * inputs[0] * outputs[0]


class Grouped(Convolution):
    """A convolution in groups, each of which reads inputs of its own: a group stays or goes as a whole."""

    @classmethod
    def fits(cls, node):
        return super(Convolution, cls).fits(node) and node.operation.groups > 1

    @functools.cached_property
    def leads(self):
        """As of `Weighted`; within a group only."""
        within = super().leads
        count, outputs = self.op.groups, within.shape[1]
        of_output = np.arange(outputs) * count // outputs
        whole = within[None] & (of_output == np.arange(count)[:, None, None])
        return whole.reshape(-1, outputs)

    def groups(self, outputs):
        """(groups,) bool, from (units,) bool of the outputs: whether some of its units are among these."""
        return outputs.reshape(self.op.groups, -1).any(1)

    def stays(self, keep):
        (keep,) = super().stays(keep)
        return [np.repeat(self.groups(keep), self.kernel.shape[-1] // self.op.groups)]

    def reads(self, keep):
        return [np.repeat(self.groups(keep[0]), self.kernel.shape[-2])]

    def pins(self, keep, pinned):
        return self.reads(keep)

    def sizes(self, outputs):
        return {"filters": outputs, "groups": outputs * self.op.groups // self.kernel.shape[-1]}

    def index(self, weight, inputs, outputs):
        return (..., outputs)

    def smaller(self, inputs, factor, outputs, scale):
        count, per = self.kernel.shape[-1] // self.op.groups, self.kernel.shape[-2]
        own = factor.reshape(-1, per)[np.arange(len(outputs)) // count]
        return [self.kernel[..., outputs] * own.T * scale]

    def multiply_adds(self, inputs, outputs):
        return super().multiply_adds([self.op.kernel.shape[-2]], outputs)


class Normalisation(Rule):
    """Batch normalisation: part of the layer before it in a plain network, if nothing else reads that."""

    KINDS = (layers.BatchNormalization, BatchNormalization)

    def rebuild(self, build, parts, keep):
        (part,), op = parts, self.op
        if id(self.node.input_tensors[0]) in build.norms:
            return parts
        if not build.plain or not op.scale or build.is_shared(op) or not part.factor.all():
            part = build.rescaled(part, op)
        layer = build.like(op, **UNCONSTRAINED) if build.plain else build.like(op)
        tensor = layer(part.tensor)
        build.take_weights(layer, op, [part.units] * len(op.weights))
        if build.plain and (part.factor != 1).any():
            # gamma (f x - mean) / deviation is that of x, with gamma f and mean / f in it.
            layer.gamma.assign(np.asarray(op.gamma)[part.units] * part.factor)
            layer.moving_mean.assign(np.asarray(op.moving_mean)[part.units] / part.factor)
        return [build.part(tensor, part.units)]


def affine(norm):
    """What batch normalisation multiplies a unit by and adds to it at test time: two (units,)."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    scale = (np.asarray(norm.gamma) if norm.scale else 1.0) / deviation
    return scale, (np.asarray(norm.beta) if norm.center else 0.0) - np.asarray(norm.moving_mean) * scale


def positions(tensor):
    """How many positions a tensor has, of those whose number is known."""
    return int(np.prod([size for size in tensor.shape[1:-1] if size]))
