"""The rules of what multiplies units, selects them, renumbers them, or is a function of each."""

import keras
import numpy as np
from keras import layers

from keras_sbp.utils.pruning import graph
from keras_sbp.utils.pruning.rules.rule import Rule, is_named, spread, width


class Affine(Rule):
    """What multiplies each unit by a number and adds another: Rescaling, Normalization."""

    KINDS = (layers.Rescaling, layers.Normalization)

    @classmethod
    def fits(cls, node):
        if not super().fits(node):
            return False
        op, count = node.operation, width(node.outputs[0])
        # Normalization before it has been adapted has no numbers, and those of others may be a position's.
        numbers = (op.scale, op.offset) if isinstance(op, layers.Rescaling) else (op.mean, op.variance)
        return all(
            x is not None and np.size(x) in (1, count) and np.size(x) == np.atleast_1d(x).shape[-1] for x in numbers
        )

    def numbers(self):
        """(units,) factors and (units,) summands."""
        op, count = self.op, width(self.node.outputs[0])
        if isinstance(op, layers.Normalization):
            scale = 1 / np.maximum(np.sqrt(np.asarray(op.variance)), keras.config.epsilon())
            offset = -np.asarray(op.mean) * scale
            if op.invert:
                scale, offset = 1 / scale, np.asarray(op.mean)
        else:
            scale, offset = np.asarray(op.scale), np.asarray(op.offset)
        return [np.broadcast_to(np.ravel(numbers), count).astype(float) for numbers in (scale, offset)]

    def varies(self, varies, constants):
        return [varies[0] & (self.numbers()[0] != 0)]

    def constants(self, constants):
        scale, offset = self.numbers()
        return [constants[0] * scale + offset]

    def rebuild(self, build, parts, keep):
        (part,), (scale, offset) = parts, self.numbers()
        scale, offset = scale[part.units], offset[part.units]
        is_float = keras.backend.is_float_dtype(part.tensor.dtype)
        if build.plain and is_float and (scale >= 0).all() and not offset.any():
            return [part._replace(factor=part.factor * scale)]
        layer = build.new(layers.Rescaling, self.op, (scale * part.factor).tolist(), offset.tolist())
        return [build.part(layer(part.tensor), part.units)]


class Noise(Rule):
    """A layer of noise: any with a method `multiplier()`, what it multiplies its units by at test time, (units,)."""

    @classmethod
    def fits(cls, node):
        return callable(getattr(node.operation, "multiplier", None))

    def varies(self, varies, constants):
        return varies if self.multiplier is None else [varies[0] & (self.multiplier != 0)]

    def constants(self, constants):
        return super().constants(constants) if self.multiplier is None else [constants[0] * self.multiplier]

    def rebuild(self, build, parts, keep):
        if build.plain:
            part = parts[0]
            part = part._replace(factor=part.factor * self.multiplier[part.units])
            # A factor moves on past a ReLU or a pooling only if it is positive.
            return [part if (part.factor >= 0).all() else build.rescaled(part, self.op)]
        part = build.select(parts[0], keep[0])
        layer = build.like(self.op)
        tensor = layer(part.tensor)
        build.take_weights(layer, self.op, [part.units if len(w.shape) else ... for w in self.op.weights])
        return [part._replace(tensor=tensor)]


class Flatten(Rule):
    """Flatten, and Reshape to one axis: a unit at each position becomes a unit of its own."""

    KINDS = (layers.Flatten, layers.Reshape)
    aligned = False

    @classmethod
    def fits(cls, node):
        known = None not in node.input_tensors[0].shape[1:] and len(node.input_tensors[0].shape) > 1
        return super().fits(node) and known and len(node.outputs[0].shape) == 2

    def varies(self, varies, constants):
        return [np.tile(varies[0], self._positions())]

    def constants(self, constants):
        return [spread(constants[0], self.node.input_tensors[0]).ravel()]

    def reads(self, keep):
        return [keep[0].reshape(self._positions(), -1).any(0)]

    def pins(self, keep, pinned):
        return self.reads(pinned)

    def rebuild(self, build, parts, keep):
        (part,), count, positions = parts, width(self.node.input_tensors[0]), self._positions()
        units = (np.arange(positions)[:, None] * count + part.units).ravel()
        layer = build.new(layers.Flatten, self.op)
        return [build.part(layer(part.tensor), units, np.tile(part.factor, positions))]

    def _positions(self):
        return width(self.node.outputs[0]) // width(self.node.input_tensors[0])


class Reshape(Rule):
    """A Reshape of the positions, in which the units stay the last axis."""

    KINDS = layers.Reshape

    @classmethod
    def fits(cls, node):
        before, after = node.input_tensors[0].shape, node.outputs[0].shape
        return super().fits(node) and len(before) > 1 and before[-1] is not None and before[-1] == after[-1]

    def constants(self, constants):
        rank = len(self.node.outputs[0].shape) - 1
        if constants[0].size == constants[0].shape[-1]:
            return [constants[0].reshape((1,) * (rank - 1) + (-1,))]
        return super().constants(constants)

    def rebuild(self, build, parts, keep):
        (part,) = parts
        layer = build.new(layers.Reshape, self.op, (*self.op.target_shape[:-1], len(part.units)))
        return [part._replace(tensor=layer(part.tensor))]


class Elementwise(Rule):
    """A function of keras.ops or keras.activations that treats every number alone, called on a tensor."""

    # Not public, so by their classes' names.
    NAMES = frozenset(
        "Abs Celu Elu Exp Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid Mish ReLU Relu Relu6 Selu "
        "Sigmoid Silu SoftShrink Softplus Softsign SparseSigmoid Square Squareplus Tanh TanhShrink Threshold".split()
    )

    @classmethod
    def fits(cls, node):
        return (
            is_named(node.operation, cls.NAMES)
            and not isinstance(node.operation, keras.Layer)
            and len(node.input_tensors) == 1
        )

    def _commutes(self):
        kind, op = type(self.op).__name__, self.op
        return kind == "Relu" or (kind == "ReLU" and op.max_value is None and not op.threshold)


class Take(Rule):
    """keras.ops.take of units by their indices, as `shrink` leaves it."""

    aligned = False

    def __init__(self, node, multiplier=None):
        super().__init__(node, multiplier)
        self.taken = taken(node)

    @classmethod
    def fits(cls, node):
        return is_take(node)

    def varies(self, varies, constants):
        return [varies[0][self.taken]]

    def constants(self, constants):
        return [constants[0][..., self.taken]]

    def reads(self, keep):
        read = np.zeros(width(self.node.input_tensors[0]), bool)
        np.logical_or.at(read, self.taken, keep[0])
        return [read]

    def pins(self, keep, pinned):
        return self.reads(pinned)

    def rebuild(self, build, parts, keep):
        (part,), (keep,) = parts, keep
        place = np.searchsorted(part.units, self.taken[keep])
        tensor = keras.ops.take(part.tensor, place.tolist(), axis=-1)
        return [build.part(tensor, keep, part.factor[place])]


class Scalar(Rule):
    """keras.ops.add, multiply and the like of a tensor and a number."""

    @classmethod
    def fits(cls, node):
        op, arguments = node.operation, [*node.arguments.args, *node.arguments.kwargs.values()]
        named = is_named(op, {"Add", "Multiply", "Subtract", "TrueDivide", "Divide", "Maximum", "Minimum"})
        others = [argument for argument in arguments if argument is not node.input_tensors[0]]
        return named and not isinstance(op, keras.Layer) and len(arguments) == 2 and all(map(np.isscalar, others))

    def rebuild(self, build, parts, keep):
        part = build.rescaled(parts[0], self.op)
        return [part._replace(tensor=graph.call(self.node, self.op, [part.tensor])[0])]


def is_take(node):
    """Whether a node is keras.ops.take of units by numbers."""
    op = node.operation
    return (
        is_named(op, {"Take"})
        and op.axis in (-1, len(node.outputs[0].shape) - 1)
        and len(node.input_tensors) == 1
        and node.input_tensors[0].shape[-1] is not None
        and np.ndim(node.arguments.args[1]) == 1
    )


def taken(node):
    """The indices that a node of keras.ops.take takes, counted from the first unit."""
    return np.asarray(node.arguments.args[1], int) % width(node.input_tensors[0])
