"""The rules of layers that treat every unit alone: activations, dropout, pooling, scaling, noise."""

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
    Rule,
    at_all_positions,
    axis_obstacle,
    is_training,
    is_uniform,
    is_unitwise,
    width,
)

# Activations a with a(s x) = s a(x) for s > 0.
HOMOGENEOUS = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
MULTIPLICATIVE_NOISE = (
    layers.Dropout,
    layers.GaussianDropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
ADDITIVE_NOISE = (layers.AlphaDropout, layers.GaussianNoise)


class Unitwise(Rule):
    """A layer that treats every unit alone and every position alike, such as an activation or dropout.

    Its weights, if it has any, have the units on their last axis, or one value for all of them.
    """

    kinds = (
        *MULTIPLICATIVE_NOISE,
        *ADDITIVE_NOISE,
        layers.Activation,
        layers.ActivityRegularization,
        layers.ELU,
        layers.Identity,
        layers.LeakyReLU,
        layers.Permute,
        layers.PReLU,
        layers.ReLU,
        layers.RepeatVector,
    )
    unitwise = True
    passes_padding = True

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        op, shape = node.operation, getattr(node.operation, "noise_shape", None)
        if not is_unitwise(getattr(op, "activation", keras.activations.linear)):
            return "its activation mixes units"
        if isinstance(op, layers.Permute) and op.dims[-1] != len(op.dims):
            return "moves the units to another axis"
        if shape and shape[-1] not in (None, 1):
            return f"noise_shape is {shape}"
        return axis_obstacle(node)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return varying

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        if is_training(self.node) and isinstance(self.op, MULTIPLICATIVE_NOISE + ADDITIVE_NOISE):
            known = (constant == 0) & isinstance(self.op, MULTIPLICATIVE_NOISE)
            return [np.where(known, constant, np.nan)]
        if isinstance(self.op, layers.PReLU):
            constant = at_all_positions(constant, self.node.input_tensors[0])
        return super().constant_outputs([constant])

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return kept

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return pinned

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,) = inputs
        if not self.commutes_with_scale():
            live = build.apply_scale(live, self.op)
        if build.inference and isinstance(self.op, layers.Identity):
            return [live]
        layer = build.clone(self)
        (tensor,) = keras_private.call(self.node, layer, [live.tensor])
        build.set_weights(layer, self.op, self.weight_index(live.units))
        return [live._replace(tensor=tensor)]

    def weight_index(self, units: Indices) -> list:
        """Where the units are in each weight of the layer. A PReLU may have one slope for all units."""
        whole = width(self.node.input_tensors[0])
        weights = getattr(self.op, "weights", [])
        return [(..., units) if len(weight.shape) and weight.shape[-1] == whole else ... for weight in weights]

    def commutes_with_scale(self) -> bool:
        """Whether a positive scale on a unit can be applied after the layer instead."""
        if isinstance(self.op, layers.Activation):
            return self.op.activation in HOMOGENEOUS
        if isinstance(self.op, layers.ReLU):
            return self.op.max_value is None and not self.op.threshold
        return type(self.op) in self.kinds and not isinstance(self.op, (*ADDITIVE_NOISE, layers.ELU))


class Spatial(Unitwise):
    """Pooling, cropping and upsampling: what is the same at all positions stays so."""

    names = ("AveragePooling", "GlobalAveragePooling", "MaxPooling", "GlobalMaxPooling", "Cropping", "UpSampling")
    names += ("AdaptiveAveragePooling", "AdaptiveMaxPooling")
    kinds = tuple(getattr(layers, f"{name}{rank}D") for name in names for rank in (1, 2, 3))
    carries_scale = True

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if is_uniform(constant):
            return [constant.reshape((1,) * (rank - 1) + constant.shape[-1:])]
        return super().constant_outputs(constants)


class Resized(Spatial):
    """Images of another size: a mean of neighbors whose weights add up to 1."""

    @classmethod
    def matches(cls, node: Node) -> bool:
        known = keras_private.is_keras_op(node.operation, {"Resize", "Resizing"})
        return known and len(node.input_tensors[0].shape) == 4 and not node.operation.pad_to_aspect_ratio

    def commutes_with_scale(self) -> bool:
        return True


class ZeroPadding(Unitwise):
    """Zeros around the image, which differ from constants other than 0."""

    kinds = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
    carries_scale = True

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        if not constant.any():
            return constants
        return super().constant_outputs([at_all_positions(constant, self.node.input_tensors[0])])


class Elementwise(Unitwise):
    """A function of keras.ops or keras.activations that treats every number alone, called on a tensor."""

    names = frozenset(
        "Absolute Cast Celu Clip Cos Elu Erf Exp Expm1 Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu Log "
        "Log1p LogSigmoid Negative ReLU Reciprocal Relu Relu6 Rsqrt Selu Sigmoid Sign Silu Sin SoftShrink Softplus "
        "Softsign SparseSigmoid Sqrt Square Squareplus Tanh TanhShrink Threshold".split()
    )

    def __init__(self, node: Node):
        super().__init__(node)
        # Of 0, these or their gradients are not finite.
        self.passes_padding = not keras_private.is_keras_op(self.op, {"Log", "Reciprocal", "Rsqrt", "Sqrt"})

    @classmethod
    def matches(cls, node: Node) -> bool:
        op = node.operation
        named = keras_private.is_keras_op(op, cls.names) and not isinstance(op, keras.Layer)
        bounds = [getattr(op, name, 0) for name in ("x_min", "x_max")]  # of a Clip, for each unit perhaps
        return named and len(node.input_tensors) == 1 and not any(map(np.ndim, bounds))

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def commutes_with_scale(self) -> bool:
        op = self.op
        if keras_private.is_keras_op(op, {"ReLU"}):
            return op.max_value is None and not op.threshold
        return keras_private.is_keras_op(op, {"Relu"})


class Noise(Unitwise):
    """A layer of noise: any with a method `multiplier()`, by which units are multiplied at inference, (units,).

    Attributes:
        multiplier: 0 for the units that go; None if it is not known yet, and all units vary.
    """

    kinds = ()
    passes_padding = False
    multiplier: Array | None = None

    @classmethod
    def matches(cls, node: Node) -> bool:
        return is_noise(node.operation)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return varying if self.multiplier is None else [varying[0] & (self.multiplier != 0)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return super().constant_outputs(constants) if self.multiplier is None else [constants[0] * self.multiplier]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,) = inputs
        if build.inference:
            live = live._replace(scale=live.scale * self.multiplier[live.units])
            # A scale commutes with a ReLU or pooling only if it is positive.
            return [live if (live.scale >= 0).all() else build.apply_scale(live, self.op)]
        live = build.select(live, kept[0])
        layer = build.clone(self)
        tensor = layer(live.tensor)
        build.set_weights(layer, self.op, self.weight_index(live.units))
        return [live._replace(tensor=tensor)]


def is_noise(layer: Any) -> bool:
    """Whether a layer multiplies units by noise: whether it has a method `multiplier()`."""
    return callable(getattr(layer, "multiplier", None))
