"""The rules of layers that treat every unit alone, of inputs, and of what the other rules do not know."""

import functools

import keras
import numpy as np
from keras import layers

from keras_sbp.utils.pruning import graph

# Operations without weights that sum up products all the same.
PRODUCTS = {"AdditiveAttention", "Attention", "Conv", "ConvTranspose", "Correlate", "DepthwiseConv", "Dot"}
PRODUCTS |= {"DotProductAttention", "Einsum", "Inner", "Matmul", "SeparableConv", "Tensordot", "Vdot"}
# Those for which a positive factor on a unit may as well come after them.
HOMOGENEOUS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


class Rule:
    """The rule of a layer that treats every unit alone and every position alike: an activation, dropout.

    Attributes:
        node, op: of the graph, and its operation.
        aligned: whether a unit of the output is the unit of the same number of every input.
    """

    KINDS = (
        layers.Activation,
        layers.ActivityRegularization,
        layers.AlphaDropout,
        layers.Dropout,
        layers.ELU,
        layers.GaussianDropout,
        layers.GaussianNoise,
        layers.Identity,
        layers.LeakyReLU,
        layers.Permute,
        layers.PReLU,
        layers.ReLU,
        layers.RepeatVector,
        layers.SpatialDropout1D,
        layers.SpatialDropout2D,
        layers.SpatialDropout3D,
    )
    aligned = True

    def __init__(self, node, multiplier=None):
        self.node, self.op, self.multiplier = node, node.operation, multiplier

    @classmethod
    def fits(cls, node):
        """Whether the rule is that of a node."""
        op = node.operation
        if not is_of(op, cls.KINDS) or not by_last_axis(node):
            return False
        if not hasattr(op, "kernel") and hasattr(op, "activation") and not treats_units_alone(op.activation):
            return False
        return not isinstance(op, layers.Permute) or op.dims[-1] == len(op.dims)

    def varies(self, varies, constants):
        """Which outputs vary with the model's inputs.

        Args:
            varies: (units,) bool of each input.
            constants: (..., units) of each input: the values of the units that do not vary, 0 for those that do; an
                axis of positions has length 1 if all are alike.
        Returns:
            (units,) bool of each output.
        """
        return varies

    def constants(self, constants):
        """The outputs where they do not vary, from `constants` as for `varies`; NaN if an image's size decides them."""
        if isinstance(self.op, layers.PReLU):
            constants = [spread(constants[0], self.node.input_tensors[0])]
        outputs = graph.call(self.node, self.op, [constant[None] for constant in constants])
        return [np.asarray(output)[0] for output in outputs]

    def stays(self, keep):
        """Which outputs stay where these do, from (units,) bool of each output to the same of each."""
        return keep

    def reads(self, keep):
        """Which inputs are read: from (units,) bool of each output, whether it stays, to (units,) bool of each."""
        return keep

    def pins(self, keep, pinned):
        """Which inputs have to be there, though they do not vary: (units,) bool of each.

        Args:
            keep, pinned: (units,) bool of each output: whether it stays, whether it has to.
        """
        return pinned

    def rebuild(self, build, parts, keep):
        """Make the layer anew.

        Args:
            build: the `Rebuild` that is under way.
            parts: the `Part` of each input.
            keep: the units of each output that stay, indices.
        Returns:
            The `Part` of each output.
        """
        (part,) = parts
        if not self._commutes():
            part = build.rescaled(part, self.op)
        if build.plain and isinstance(self.op, layers.Identity):
            return [part]
        layer = build.like(self.op)
        (tensor,) = graph.call(self.node, layer, [part.tensor])
        # A PReLU may have one slope for all units.
        weights, whole = getattr(self.op, "weights", []), width(self.node.input_tensors[0])
        build.take_weights(layer, self.op, [(..., part.units) if w.shape[-1] == whole else ... for w in weights])
        return [part._replace(tensor=tensor)]

    def multiply_adds(self, inputs, outputs):
        """Multiply-adds for one example, of so many units of its inputs and its outputs; None if they are not known."""
        return 0

    def _commutes(self):
        """Whether a positive factor on a unit may as well come after the layer."""
        if isinstance(self.op, layers.Activation):
            return self.op.activation in HOMOGENEOUS
        if isinstance(self.op, layers.ReLU):
            return self.op.max_value is None and not self.op.threshold
        return not isinstance(self.op, (layers.AlphaDropout, layers.ELU, layers.GaussianNoise))


class Spatial(Rule):
    """Pooling, cropping and upsampling, which take what is alike at all positions to the same."""

    NAMES = ("AveragePooling", "GlobalAveragePooling", "MaxPooling", "GlobalMaxPooling", "Cropping", "UpSampling")
    KINDS = tuple(getattr(layers, f"{name}{rank}D") for name in NAMES for rank in (1, 2, 3))

    def constants(self, constants):
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if is_even(constant):
            return [constant.reshape((1,) * (rank - 1) + constant.shape[-1:])]
        return super().constants(constants)


class ZeroPadding(Rule):
    """Zeros around the image, which differ from units that are constants other than 0."""

    KINDS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)

    def constants(self, constants):
        return (
            super().constants([spread(constants[0], self.node.input_tensors[0])]) if constants[0].any() else constants
        )


class Input(Rule):
    """An input of the model: all its units vary."""

    KINDS = layers.InputLayer
    aligned = False

    @classmethod
    def fits(cls, node):
        return graph.is_input(node)

    def varies(self, varies, constants):
        return [np.ones(width(tensor), bool) for tensor in self.node.outputs]

    def reads(self, keep):
        return []

    def pins(self, keep, pinned):
        return []


class Barrier(Rule):
    """An operation that the other rules do not know: all that it reads and gives stays, or it goes as a whole."""

    aligned = False

    @classmethod
    def fits(cls, node):
        return True

    def varies(self, varies, constants):
        any_varies = any(units.any() for units in varies)
        return [np.full(width(tensor), any_varies) for tensor in self.node.outputs]

    def constants(self, constants):
        whole = [spread(constant, tensor) for constant, tensor in zip(constants, self.node.input_tensors)]
        if any(np.isnan(constant).any() for constant in whole):
            return [np.full(width(tensor), np.nan) for tensor in self.node.outputs]
        return super().constants(whole)

    def stays(self, keep):
        return [np.full_like(units, any(some.any() for some in keep)) for units in keep]

    def reads(self, keep):
        return [np.full(width(tensor), keep[0].any()) for tensor in self.node.input_tensors]

    def pins(self, keep, pinned):
        return self.reads(keep)

    def rebuild(self, build, parts, keep):
        parts = [build.rescaled(part, self.op) for part in parts]
        layer = build.like(self.op)
        outputs = graph.call(self.node, layer, [part.tensor for part in parts])
        build.take_weights(layer, self.op, [...] * len(getattr(self.op, "weights", [])))
        return [build.part(tensor) for tensor in outputs]

    def multiply_adds(self, inputs, outputs):
        return None if getattr(self.op, "weights", []) or type(self.op).__name__ in PRODUCTS else 0


def width(tensor):
    """How many units a tensor has; 1 where its last axis is the batch, or of any length."""
    return (tensor.shape[-1] if len(tensor.shape) > 1 else None) or 1


def is_even(constant):
    """Whether a constant is the same at all positions."""
    return all(size == 1 for size in constant.shape[:-1])


def spread(constant, tensor):
    """A constant at all positions of a tensor; where their number is not known, NaN for what is not 0."""
    if None in tensor.shape[1:]:
        return np.where(constant == 0, constant, np.nan)
    return np.broadcast_to(constant, tensor.shape[1:])


def is_of(op, kinds):
    """Whether an operation computes as one of these kinds does.

    What a subclass of somebody's computes is not known, unless it says with which kernel (`sparse_kernel`).
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return type(op) in kinds or (isinstance(op, kinds) and hasattr(op, "sparse_kernel"))


def is_named(op, names):
    """Whether an operation is one of Keras's by the name of its class, where the class is not public."""
    return type(op).__name__ in names and type(op).__module__.startswith("keras.")


@functools.cache
def treats_units_alone(activation):
    """Whether a unit of a function's output is told by that unit of its input: tried on some numbers."""
    if isinstance(activation, keras.Layer) and not activation.built:
        return False  # the numbers would give it their size
    x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    other = np.concatenate([x[:, :4], x[::-1, 4:] + 1], axis=-1)
    try:
        before, after = (np.asarray(activation(keras.ops.convert_to_tensor(values))) for values in (x, other))
    except Exception:  # whatever a function of somebody's raises
        return False
    return before.shape == x.shape and np.array_equal(before[:, :4], after[:, :4])


def by_last_axis(node):
    """Whether a layer reads one tensor, whose units are the last axis. A mask would be a second one."""
    op, axis = node.operation, getattr(node.operation, "axis", -1)
    axis = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    return (
        len(node.input_tensors) == 1
        and getattr(op, "data_format", None) != "channels_first"
        and axis in ([-1], [len(node.outputs[0].shape) - 1])
    )
