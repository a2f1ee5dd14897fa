"""The rules of what brings several tensors together: sums, products, concatenations."""

import keras
import numpy as np
from keras import layers

from keras_sbp.utils.pruning import graph
from keras_sbp.utils.pruning.rules.rule import Rule, is_named, is_of, width


class Merge(Rule):
    """A sum, difference, mean, maximum or minimum of tensors, unit by unit."""

    KINDS = (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract)
    # Not public, so by their classes' names: of keras.ops, and the sum of keras.applications.InceptionResNetV2.
    NAMES = frozenset(("Add", "Maximum", "Minimum", "Subtract", "CustomScaleLayer"))

    @classmethod
    def fits(cls, node):
        shapes = [tensor.shape for tensor in node.input_tensors]
        known = is_of(node.operation, cls.KINDS) or is_named(node.operation, cls.NAMES)
        return known and len(shapes) > 1 and len({len(shape) for shape in shapes}) == 1 and len(shapes[0]) > 1

    def varies(self, varies, constants):
        return [np.logical_or.reduce(np.broadcast_arrays(*varies))]

    def reads(self, keep):
        return [self._of(keep[0], tensor) for tensor in self.node.input_tensors]

    def pins(self, keep, pinned):
        # A unit of the sum needs its summands, also those that do not vary.
        return self.reads(keep)

    def rebuild(self, build, parts, keep):
        (keep,), tensors, living = keep, self.node.input_tensors, build.living
        # An input of one unit for all of them has nothing to select.
        whole = width(self.node.outputs[0])
        parts = [part if width(x) < whole else build.select(part, keep) for part, x in zip(parts, tensors)]
        if build.plain and isinstance(self.op, layers.Add):
            left = [part for part, tensor in zip(parts, tensors) if not living.is_zero(tensor)]
            # A zero may still be what gives the sum its positions or its units.
            shape = (*self.node.outputs[0].shape[1:-1], len(keep))
            parts = left if any(part.tensor.shape[1:] == shape for part in left) else parts
            if len(parts) == 1:
                return parts
        parts, factor = self.common(build, parts, keep)
        tensors = [part.tensor for part in parts]
        operation = build.like(self.op)
        if len(tensors) == len(self.node.input_tensors):
            return [build.part(graph.call(self.node, operation, tensors)[0], keep, factor)]
        return [build.part(operation(tensors), keep, factor)]

    def common(self, build, parts, keep):
        """The parts with a factor that may as well come after, and that factor."""
        factors = [part.factor for part in parts]
        if all(len(factor) == len(keep) and np.array_equal(factor, factors[0]) for factor in factors):
            return parts, factors[0]
        return [build.rescaled(part, self.op) for part in parts], np.ones(len(keep))

    def _of(self, units, tensor):
        """Units of the output as those of an input, which may have one for all of them."""
        return units if width(tensor) == len(units) else np.array([units.any()])


class Product(Merge):
    """A product of tensors, unit by unit: 0 where one of them is 0 throughout."""

    KINDS = layers.Multiply
    NAMES = frozenset(("Multiply",))

    def varies(self, varies, constants):
        zero = [~units & ~constant.any(tuple(range(constant.ndim - 1))) for units, constant in zip(varies, constants)]
        return [super().varies(varies, constants)[0] & ~np.logical_or.reduce(np.broadcast_arrays(*zero))]

    def common(self, build, parts, keep):
        return parts, np.prod(np.broadcast_arrays(*(part.factor for part in parts)), axis=0)


class Concatenate(Rule):
    """Tensors side by side: their units one after the other."""

    aligned = False

    @classmethod
    def fits(cls, node):
        named = is_named(node.operation, {"Concatenate"})
        return named and node.operation.axis in (-1, len(node.outputs[0].shape) - 1) and len(node.outputs[0].shape) > 1

    def varies(self, varies, constants):
        return [np.concatenate(varies)]

    def constants(self, constants):
        rank = max(constant.ndim for constant in constants)
        sizes = [max(constant.shape[axis] for constant in constants) for axis in range(rank - 1)]
        return [np.concatenate([np.broadcast_to(c, (*sizes, c.shape[-1])) for c in constants], -1)]

    def reads(self, keep):
        return np.split(keep[0], self._ends())

    def pins(self, keep, pinned):
        return np.split(pinned[0], self._ends())

    def rebuild(self, build, parts, keep):
        (keep,), starts = keep, [0, *self._ends()]
        chosen = []
        for part, start, tensor in zip(parts, starts, self.node.input_tensors):
            own = keep[(keep >= start) & (keep < start + width(tensor))] - start
            if len(own):
                chosen.append(build.select(part, own))
        factor = np.concatenate([part.factor for part in chosen])
        tensors = [part.tensor for part in chosen]
        if len(chosen) == 1:
            return [build.part(tensors[0], keep, factor)]
        if isinstance(self.op, keras.Layer):
            return [build.part(build.new(layers.Concatenate, self.op)(tensors), keep, factor)]
        # Unlike the layer it hands on no mask.
        return [build.part(keras.ops.concatenate(tensors, axis=-1), keep, factor)]

    def _ends(self):
        return np.cumsum([width(tensor) for tensor in self.node.input_tensors])[:-1]
