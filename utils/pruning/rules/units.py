"""The rules of what multiplies units, selects them or gives them other numbers."""

import keras
import numpy as np

from utils.pruning.rules.rule import Rule, width


class Multiplier(Rule):
    """What multiplies each unit by a number of its own: Rescaling by factors that are not negative."""

    KINDS = keras.layers.Rescaling

    def __init__(self, node, multiplier=None):
        super().__init__(node, np.broadcast_to(node.operation.scale, node.outputs[0].shape[-1:]))

    @classmethod
    def fits(cls, node):
        if not super().fits(node):
            return False
        scale, offset = np.asarray(node.operation.scale), np.asarray(node.operation.offset)
        # A unit with an offset is a constant, as `shrink` leaves it, or the rule would lose the offset.
        return np.all(scale >= 0) and not (np.any(scale) and np.any(offset))

    def varies(self, varies):
        return [varies[0] & (self.multiplier != 0)]

    def rebuild(self, build, parts, keep):
        part = parts[0]._replace(factor=parts[0].factor * self.multiplier[parts[0].units])
        return [part if build.plain else build.rescaled(part, self.op)]


class Noise(Multiplier):
    """A layer of noise: any with a method `multiplier()`, what it multiplies its units by at test time, (units,)."""

    def __init__(self, node, multiplier=None):
        Rule.__init__(self, node, multiplier)

    @classmethod
    def fits(cls, node):
        return hasattr(node.operation, "multiplier")

    def varies(self, varies):
        return varies if self.multiplier is None else super().varies(varies)

    def constants(self, constants):
        return super().constants(constants) if self.multiplier is None else [constants[0] * self.multiplier]

    def rebuild(self, build, parts, keep):
        if build.plain:
            return super().rebuild(build, parts, keep)
        part = build.select(parts[0], keep[0])
        layer = build.like(self.op)
        tensor = layer(part.tensor)
        build.take_weights(layer, self.op, [part.units] * len(self.op.weights))
        return [part._replace(tensor=tensor)]


class Flatten(Rule):
    """Flatten: a unit at each position becomes a unit of its own."""

    KINDS = keras.layers.Flatten

    def varies(self, varies):
        return [np.tile(varies[0], self._positions())]

    def reads(self, keep):
        return [keep[0].reshape(self._positions(), -1).any(0)]

    pins = reads

    def rebuild(self, build, parts, keep):
        (part,), count, positions = parts, width(self.node.input_tensors[0]), self._positions()
        units = (np.arange(positions)[:, None] * count + part.units).ravel()
        layer = build.like(self.op)
        return [build.part(layer(part.tensor), units, np.tile(part.factor, positions))]

    def _positions(self):
        return width(self.node.outputs[0]) // width(self.node.input_tensors[0])


class Take(Rule):
    """keras.ops.take of units by their indices, as `shrink` leaves it."""

    def __init__(self, node, multiplier=None):
        super().__init__(node, multiplier)
        self.taken = taken(node)

    @classmethod
    def fits(cls, node):
        return is_take(node)

    def varies(self, varies):
        return [varies[0][self.taken]]

    def constants(self, constants):
        return [constants[0][..., self.taken]]

    def reads(self, keep):
        read = np.zeros(width(self.node.input_tensors[0]), bool)
        np.logical_or.at(read, self.taken, keep[0])
        return [read]

    pins = reads

    def rebuild(self, build, parts, keep):
        (part,), (keep,) = parts, keep
        place = np.searchsorted(part.units, self.taken[keep])
        tensor = keras.ops.take(part.tensor, place.tolist(), axis=-1)
        return [build.part(tensor, keep, part.factor[place])]


def is_take(node):
    """Whether a node is keras.ops.take of units by numbers."""
    op = node.operation
    return (
        type(op).__name__ == "Take"
        and op.axis in (-1, len(op.output.shape) - 1)
        and len(node.input_tensors) == 1
        and np.ndim(node.arguments.args[1]) == 1
    )


def taken(node):
    """The indices that a node of keras.ops.take takes."""
    return np.asarray(node.arguments.args[1], int)
