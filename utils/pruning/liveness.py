"""Which units of a network live.

A unit lives while it varies with the input and something living reads it:

- it varies if a weight other than zero leads to it from a unit that varies, and no multiplier of zero follows;
- it is read if a weight other than zero leads from it to a unit that lives.

One sweep down the model's graph and one sweep up decide that for every unit. What a dead unit still adds is a constant.
Dead units that a layer cannot do without are pinned, and the upward sweep is repeated until nothing changes.
"""

import collections

import numpy as np

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.rules import Weighted


class Liveness:
    """Which units of a model live.

    Args:
        model: as for `shrink`, without models in it.
        multipliers: {noise layer's name: (units,)}, 0 for a unit that is to go.
        plain: whether the network is to be without noise; else it goes on in training.
    Attributes:
        rules: of the model's nodes, inputs first.
        places: {operation's id: the rules of its nodes}.
        varies: {tensor's id: (units,) bool}.
        moves: whether constants of dead units go into biases; else a unit whose constant is not 0 stays: in training,
            noise and batch normalisation would make something else of it.
        keep: {tensor's id: (units,) bool}, the living.
        constant: {tensor's id: (..., units)}, the values of units that do not vary; an axis of positions has length 1
            if all are alike.
    """

    def __init__(self, model, multipliers, plain=True):
        self.plain = plain
        self.rules = [rules.of(node, multipliers.get(node.operation.name)) for node in graph.nodes(model)]
        self.moves = plain or not any(isinstance(rule, (rules.Noise, rules.Normalisation)) for rule in self.rules)
        self.places = collections.defaultdict(list)
        for rule in self.rules:
            self.places[id(rule.op)].append(rule)
        self._find(model)
        if any(None in x.shape[1:-1] or getattr(x, "_keras_mask", None) is not None for x in self._constant_tensors()):
            # A tensor of nothing but constants cannot be made anew where its size is not known, nor the mask that comes
            # with it: a unit of it stays.
            self._find(model, spare=True)

    def _find(self, model, spare=False):
        self._sweep_down(spare)
        # Units that stay although they do not vary: the outputs, and what no bias can stand for.
        self.pinned = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        for tensor in model.outputs:
            self.pinned[id(tensor)][:] = True
        self._sweep_up()
        while self._tie() or self._pin():
            self._sweep_up()

    def _constant_tensors(self):
        """Those that stay and do not vary."""
        constant = [rule.node for rule in self.rules if self.is_constant(rule.node)]
        return [tensor for node in constant for tensor in node.outputs if self.keep[id(tensor)].any()]

    def _sweep_down(self, spare):
        self.varies, self.constant = {}, {}
        for rule in self.rules:
            inputs, outputs = _ids(rule.node)
            given = [self.constant[tensor] for tensor in inputs]
            varies = rule.varies([self.varies[tensor] for tensor in inputs], given)
            if all(units.all() for units in varies):
                constants = [np.zeros(len(units)) for units in varies]
            else:
                constants = rule.constants(given)
            for tensor, units, constant, symbol in zip(outputs, varies, constants, rule.node.outputs):
                constant = np.asarray(constant, np.float32)
                constant = constant.reshape((1,) * (len(symbol.shape) - 1 - constant.ndim) + constant.shape)
                # Where it is not known, the unit counts as one that varies.
                units = units | np.isnan(constant).reshape(-1, len(units)).any(0)
                if spare and not units.any() and any(self.varies[source].any() for source in inputs):
                    units = np.arange(len(units)) == 0
                constant = np.where(units, 0, constant)
                self.varies[tensor], self.constant[tensor] = units, _alike(constant)

    def _sweep_up(self):
        read = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        self.keep = {}
        for rule in reversed(self.rules):
            inputs, outputs = _ids(rule.node)
            for tensor in outputs:
                self.keep[tensor] = self.varies[tensor] & read[tensor] | self.pinned[tensor]
            keep = [self.keep[tensor] for tensor in outputs]
            for tensor, before, after in zip(outputs, keep, rule.stays(keep)):
                self.pinned[tensor] |= after & ~before
                self.keep[tensor] = before | after
            if self.is_constant(rule.node):
                continue
            keep, pinned = ([of[tensor] for tensor in outputs] for of in (self.keep, self.pinned))
            for tensor, reads, pins in zip(inputs, rule.reads(keep), rule.pins(keep, pinned)):
                read[tensor] |= reads
                self.pinned[tensor] |= pins

    def _pin(self):
        """Pin the constant inputs of the first layer that no bias can stand for them in; whether there was one."""
        for places in self._living_places():
            if isinstance(places[0], Weighted):
                parts = np.concatenate([self.constant_part(rule) for rule in places])
                if not self.moves or not (self.plain or places[0].op.use_bias):
                    parts = np.pad(parts, ((0, 1), (0, 0)))
                even = parts.min(axis=0) + 1e-6 * np.abs(parts).max(initial=1e-30) >= parts.max(axis=0)
                if not even.all():
                    sources = [_ids(rule.node)[0][0] for rule in places]
                    dead = [~self.varies[x] & ~self.keep[x] & self._reads(rule)[0] for x, rule in zip(sources, places)]
                    for source, units in zip(sources, dead):
                        self.pinned[source] |= units
                    if any(units.any() for units in dead):
                        return True
        return False

    def _tie(self):
        """Pin what one place of a layer in several places keeps, at the others; whether there was something."""
        pinned = False
        for places in self._living_places():
            # Of noise, a plain network has nothing left.
            gone = self.plain and isinstance(places[0], rules.Noise)
            if len(places) > 1 and getattr(places[0].op, "weights", []) and not gone:
                for same in zip(*map(self._units, places)):
                    needed = np.logical_or.reduce([units for _, units in same])
                    for tensor, units in same:
                        self.pinned[tensor] |= needed & ~units
                        pinned |= (needed & ~units).any()
        return pinned

    def _reads(self, rule):
        """Which units of each input a living output of a node reads."""
        return rule.reads([self.keep[tensor] for tensor in _ids(rule.node)[1]])

    def _units(self, rule):
        """[(tensor's id, the living units that a node reads of it or gives)]."""
        inputs, outputs = _ids(rule.node)
        read = [self.keep[tensor] & units for tensor, units in zip(inputs, self._reads(rule))]
        return [*zip(inputs, read), *((tensor, self.keep[tensor]) for tensor in outputs)]

    def _living_places(self):
        """For each layer, the rules of its places in the graph where a living output varies."""
        for places in self.places.values():
            living = [rule for rule in places if not self.is_constant(rule.node)]
            if living:
                yield living

    def is_constant(self, node):
        """Whether no living output of a node varies: its value will do for it."""
        return not any((self.keep[tensor] & self.varies[tensor]).any() for tensor in _ids(node)[1])

    def is_zero(self, tensor):
        """Whether a tensor is 0 whatever the model's input is."""
        return not self.varies[id(tensor)].any() and not self.constant[id(tensor)].any()

    def lacks_noise(self):
        """Whether a noise layer has no unit left."""
        return any(isinstance(rule, rules.Noise) and self.is_constant(rule.node) for rule in self.rules)

    def constant_part(self, rule):
        """What the units that are taken out add to each living output of a weighted layer: (positions, outputs)."""
        ((source,), (output,)) = _ids(rule.node)
        constant = np.where(self.keep[source] | self.varies[source], 0, self.constant[source])
        return rule.linear(constant)[..., self.keep[output]].reshape(-1, self.keep[output].sum())

    def kept(self, tensor):
        """The living units of a tensor: their indices."""
        return np.flatnonzero(self.keep[id(tensor)])

    def read(self, rule):
        """The living units that a weighted layer reads: their indices."""
        return np.flatnonzero(self._units(rule)[0][1])

    def multiply_adds(self):
        """Those of the living units; of layers whose multiply-adds are not known, 0."""
        return sum(
            rule.multiply_adds(*([int(self.keep[tensor].sum()) for tensor in side] for side in _ids(rule.node))) or 0
            for rule in self.rules
        )


def _alike(constant):
    """A constant with axes of length 1 for the positions, if it is the same at all of them."""
    first = constant[(slice(0, 1),) * (constant.ndim - 1)]
    return first if (constant == first).all() else constant


def _ids(node):
    return [id(tensor) for tensor in node.input_tensors], [id(tensor) for tensor in node.outputs]
