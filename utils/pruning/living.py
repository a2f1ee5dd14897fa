"""Which units of a network live.

A unit lives while it varies with the input and something living reads it:

- it varies if a weight other than zero leads to it from a unit that varies, and no multiplier of zero follows;
- it is read if a weight other than zero leads from it to a unit that lives.

One sweep down the model's graph and one sweep up decide that for every unit. What a dead unit still adds is a constant.
"""

import collections

import numpy as np

from utils.pruning import graph, rules
from utils.pruning.rules import Weighted


class Living:
    """Which units of a model live.

    Args:
        model: as for `shrink`.
        multipliers: {noise layer's name: (units,)}, 0 for a unit that is to go.
        biases: whether the constants of dead units move into biases; else a unit whose constant is not 0 stays.
    Attributes:
        rules: of the model's nodes, inputs first.
        varies: {tensor's id: (units,) bool}.
        keep: {tensor's id: (units,) bool}, the living.
        constant: {tensor's id: (..., units)}, the tensor for an input of zeros: the values of units that do not vary.
    """

    def __init__(self, model, multipliers, biases=True):
        self.biases = biases
        self.rules = [rules.of(node, multipliers.get(node.operation.name)) for node in graph.nodes(model)]
        self.places = collections.defaultdict(list)
        for rule in self.rules:
            self.places[id(rule.op)].append(rule)
        self._sweep_down()
        # Units that stay although they do not vary: the outputs, and what no bias can stand for.
        self.pinned = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        for tensor in model.outputs:
            self.pinned[id(tensor)][:] = True
        self._sweep_up()
        while self._tie() or self._pin():
            self._sweep_up()

    def _sweep_down(self):
        self.varies, self.constant = {}, {}
        for rule in self.rules:
            inputs, outputs = _ids(rule.node)
            self.varies |= zip(outputs, rule.varies([self.varies[tensor] for tensor in inputs]))
            self.constant |= zip(outputs, rule.constants([self.constant[tensor] for tensor in inputs]))

    def _sweep_up(self):
        read = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        self.keep = {}
        for rule in reversed(self.rules):
            inputs, outputs = _ids(rule.node)
            for tensor in outputs:
                self.keep[tensor] = self.varies[tensor] & read[tensor] | self.pinned[tensor]
            if rule.pinned and any(self.keep[tensor].any() for tensor in outputs):
                for tensor in outputs:
                    self.pinned[tensor][:] = self.keep[tensor][:] = True
            if self.is_constant(rule.node):
                continue
            for tensor, reads in zip(inputs, rule.reads([self.keep[tensor] for tensor in outputs])):
                read[tensor] |= reads
            for tensor, pins in zip(inputs, rule.pins([self.pinned[tensor] for tensor in outputs])):
                self.pinned[tensor] |= pins

    def _pin(self):
        """Pin the constant inputs of the first layer that no bias can stand for them in; whether there was one."""
        for places in self._living_places():
            if isinstance(places[0], Weighted):
                parts = np.concatenate([self.constant_part(rule) for rule in places])
                if not self.biases:
                    parts = np.pad(parts, ((0, 1), (0, 0)))
                uneven = parts.min(axis=0) + 1e-6 * np.abs(parts).max(initial=1e-30) < parts.max(axis=0)
                if uneven.any():
                    for rule in places:
                        ((source,), (output,)) = _ids(rule.node)
                        dead = ~self.varies[source] & ~self.keep[source]
                        self.pinned[source] |= dead & rule.reads([self.keep[output]])[0]
                    return True
        return False

    def _tie(self):
        """Pin what one place of a layer in several places keeps, at the others; whether there was something."""
        pinned = False
        for places in self._living_places():
            if len(places) > 1 and getattr(places[0].op, "weights", []):
                for same in zip(*map(self._units, places)):
                    needed = np.logical_or.reduce([units for _, units in same])
                    for tensor, units in same:
                        self.pinned[tensor] |= needed & ~units
                        pinned |= (needed & ~units).any()
        return pinned

    def _units(self, rule):
        """[(tensor's id, the living units that a node reads of it or gives)]."""
        inputs, outputs = _ids(rule.node)
        keep = [self.keep[tensor] for tensor in outputs]
        read = [self.keep[tensor] & units for tensor, units in zip(inputs, rule.reads(keep))]
        return [*zip(inputs, read), *zip(outputs, keep)]

    def _living_places(self):
        """For each layer, the rules of its places in the graph where a living output varies."""
        for places in self.places.values():
            living = [rule for rule in places if not self.is_constant(rule.node)]
            if living:
                yield living

    def is_constant(self, node):
        """Whether no living output of a node varies: its value will do for it."""
        return not any((self.keep[tensor] & self.varies[tensor]).any() for tensor in _ids(node)[1])

    def lacks_noise(self):
        """Whether a noise layer has no unit left."""
        return any(isinstance(rule, rules.Noise) and self.is_constant(rule.node) for rule in self.rules)

    def constant_part(self, rule):
        """What the units that are taken out add to each living output of a weighted layer: (positions, outputs)."""
        ((source,), (output,)) = _ids(rule.node)
        constant = np.where(self.keep[source] | self.varies[source], 0, self.constant[source])
        return rule.constant_part(constant, self.keep[output])

    def kept(self, tensor):
        """The living units of a tensor: their indices."""
        return np.flatnonzero(self.keep[id(tensor)])

    def read(self, rule):
        """The living units that a weighted layer reads: their indices."""
        return np.flatnonzero(self._units(rule)[0][1])

    def multiply_adds(self):
        """Those of the living units."""
        return sum(
            rule.multiply_adds(*([int(self.keep[tensor].sum()) for tensor in side] for side in _ids(rule.node)))
            for rule in self.rules
        )


def _ids(node):
    return [id(tensor) for tensor in node.input_tensors], [id(tensor) for tensor in node.outputs]
