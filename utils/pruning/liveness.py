"""Liveness analysis: which units of a network have an effect on its outputs.

A unit is live if it varies with the input and a live unit uses it:

- it varies if a weight other than 0 leads to it from a unit that varies, and no multiplier of 0 follows;
- it is used if a weight other than 0 leads from it to a live unit.

One pass down the model's graph (constant propagation) and one pass up (uses) decide that for every unit. What a dead
unit still adds is a constant. Dead units that a layer cannot do without are pinned, and the pass up is repeated until
nothing changes.
"""

import collections
from collections.abc import Iterator

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.rules import Array, Indices, Mask, Node, Rule


class Liveness:
    """Which units of a model are live.

    Args:
        model: functional or Sequential, without nested models.
        multipliers: {noise layer's name: (units,)}, 0 for the units that go.
        inference: whether the network without the dead units is for inference, without noise; otherwise training goes
            on in it.
    Attributes:
        rules: of the model's nodes, inputs first.
        call_sites: {operation's id: the rules of its nodes}.
        folds_constants: whether biases take up the constants of dead units. If not, a unit whose constant is not 0 is
            kept: in training, noise and batch normalization would change it.
        varying: {tensor's id: (units,) bool}.
        constants: {tensor's id: (..., units)}, the values of the units that do not vary; an axis of positions has
            length 1 if the values are the same at all of them.
        unknown: {tensor's id: (units,) bool}, constants that are not known and thus count as varying.
        pinned: {tensor's id: (units,) bool}, the units that are kept even if they do not vary.
        kept: {tensor's id: (units,) bool}, the units that are live or pinned.
    """

    def __init__(self, model: keras.Model, multipliers: dict[str, Array], inference: bool = True):
        self.inference = inference
        self.rules = rules.of_network(graph.nodes(model), model.outputs, inference)
        self.call_sites: dict[int, list[Rule]] = collections.defaultdict(list)
        for rule in self.rules:
            self.call_sites[id(rule.op)].append(rule)
            if isinstance(rule, rules.Noise):
                rule.multiplier = multipliers.get(rule.op.name)
        in_training = any(isinstance(rule, (rules.Noise, rules.BatchNorm)) for rule in self.rules)
        self.folds_constants = inference or not in_training
        self._analyze(model)
        if not self._can_be_built(self._constant_tensors()):
            self._analyze(model, keep_one=True)

    def _analyze(self, model: keras.Model, keep_one: bool = False) -> None:
        self._propagate_constants(keep_one)
        self.pinned = {tensor: np.zeros_like(varying) for tensor, varying in self.varying.items()}
        for tensor in model.outputs:
            self.pinned[id(tensor)][:] = True
        self._propagate_uses()
        while self._unify_shared_layers() or self._pin_nonuniform_constants():
            self._propagate_uses()

    def _constant_tensors(self) -> list[keras.KerasTensor]:
        """Those of which units are kept, but none varies."""
        nodes = [rule.node for rule in self.rules if self.is_constant(rule.node)]
        return [tensor for node in nodes for tensor in node.outputs if self.kept[id(tensor)].any()]

    def _can_be_built(self, tensors: list[keras.KerasTensor]) -> bool:
        """Whether tensors can be built from constants alone, with as many examples as the network's input."""
        if any(None in x.shape[1:-1] or keras_private.mask_of(x) is not None for x in tensors):
            return False
        counts = rules.example_counts(rule.node for rule in self.rules) if tensors else {}
        return all(counts[id(x)] == 1 for x in tensors)

    def _propagate_constants(self, keep_one: bool) -> None:
        """Find `varying` and `constants`, from the inputs to the outputs.

        Args:
            keep_one: whether a tensor that becomes constant has its first unit count as varying.
        """
        self.varying, self.constants, self.unknown = {}, {}, {}
        for rule in self.rules:
            inputs, outputs = _ids(rule.node)
            given = [self.constants[tensor] for tensor in inputs]
            varying = rule.varying_outputs([self.varying[tensor] for tensor in inputs], given)
            if all(units.all() for units in varying):
                constants = [np.zeros(len(units)) for units in varying]
            else:
                constants = rule.constant_outputs(given)
            for tensor, units, constant, symbol in zip(outputs, varying, constants, rule.node.outputs):
                constant = np.asarray(constant, np.float32)
                constant = constant.reshape((1,) * (len(symbol.shape) - 1 - constant.ndim) + constant.shape)
                # A unit whose constant is not known counts as one that varies.
                self.unknown[tensor] = ~np.isfinite(constant).reshape(-1, len(units)).all(0)
                units = units | self.unknown[tensor]
                if keep_one and not units.any() and any(self.varying[source].any() for source in inputs):
                    units = np.arange(len(units)) == 0
                self.varying[tensor] = units
                self.constants[tensor] = _once_if_uniform(np.where(units, 0, constant))

    def _propagate_uses(self) -> None:
        """Find `kept`, from the outputs to the inputs."""
        used = {tensor: np.zeros_like(varying) for tensor, varying in self.varying.items()}
        self.kept = {}
        for rule in reversed(self.rules):
            inputs, outputs = _ids(rule.node)
            alone = [self.varying[tensor] & used[tensor] | self.pinned[tensor] for tensor in outputs]
            for tensor, before, after in zip(outputs, alone, rule.coupled_outputs(alone)):
                self.pinned[tensor] |= after & ~before
                self.kept[tensor] = before | after
            if self.is_constant(rule.node):
                continue
            kept = [self.kept[tensor] for tensor in outputs]
            # The inputs of a constant that is not known must be there to compute it.
            pinned = [self.pinned[tensor] | self.kept[tensor] & self.unknown[tensor] for tensor in outputs]
            for tensor, uses, requires in zip(inputs, rule.used_inputs(kept), rule.required_inputs(kept, pinned)):
                used[tensor] |= uses
                self.pinned[tensor] |= requires

    def _pin_nonuniform_constants(self) -> bool:
        """Pin the constant inputs of the first layer whose bias cannot replace them; returns whether there is one."""
        for sites in self._live_call_sites():
            if isinstance(sites[0], rules.Kernel):
                added = np.concatenate([self.removed_constants(rule) for rule in sites])
                if not self.folds_constants or not (self.inference or sites[0].has_bias):
                    added = np.pad(added, ((0, 1), (0, 0)))
                uniform = added.min(axis=0) + 1e-6 * np.abs(added).max(initial=1e-30) >= added.max(axis=0)
                if not uniform.all():
                    sources = [_ids(rule.node)[0][0] for rule in sites]
                    dead = [
                        ~self.varying[tensor] & ~self.kept[tensor] & self._used(rule)[0]
                        for tensor, rule in zip(sources, sites)
                    ]
                    for tensor, units in zip(sources, dead):
                        self.pinned[tensor] |= units
                    if any(units.any() for units in dead):
                        return True
        return False

    def _unify_shared_layers(self) -> bool:
        """Pin the units that one call site of a layer keeps at its other call sites; returns whether there are any.

        A layer whose call sites have different widths, like an Embedding of texts of two lengths, has no weights along
        that axis, so there is nothing to unify.
        """
        found = False
        for sites in self._live_call_sites():
            # A network for inference has no noise.
            gone = self.inference and isinstance(sites[0], rules.Noise)
            if len(sites) == 1 or not getattr(sites[0].op, "weights", []) or gone:
                continue
            for same in zip(*map(self._kept_at, sites)):
                if len({len(units) for _, units in same}) > 1:
                    continue
                needed = np.logical_or.reduce([units for _, units in same])
                for tensor, units in same:
                    self.pinned[tensor] |= needed & ~units
                    found |= (needed & ~units).any()
        return bool(found)

    def _used(self, rule: Rule) -> list[Mask]:
        """Which units of each input have an effect on what is kept of a node's outputs."""
        return rule.used_inputs([self.kept[tensor] for tensor in _ids(rule.node)[1]])

    def _kept_at(self, rule: Rule) -> list[tuple[int, Mask]]:
        """[(tensor's id, the kept units that a node uses or outputs)]."""
        inputs, outputs = _ids(rule.node)
        used = [self.kept[tensor] & units for tensor, units in zip(inputs, self._used(rule))]
        return [*zip(inputs, used), *((tensor, self.kept[tensor]) for tensor in outputs)]

    def _live_call_sites(self) -> Iterator[list[Rule]]:
        """For each layer, the rules of those of its nodes whose outputs have a live unit."""
        for sites in self.call_sites.values():
            live = [rule for rule in sites if not self.is_constant(rule.node)]
            if live:
                yield live

    def is_constant(self, node: Node) -> bool:
        """Whether no kept output of a node varies, so that its value can replace it."""
        return not any((self.kept[tensor] & self.varying[tensor]).any() for tensor in _ids(node)[1])

    def is_zero(self, tensor: keras.KerasTensor) -> bool:
        """Whether a tensor is 0 for every input of the model."""
        return not self.varying[id(tensor)].any() and not self.constants[id(tensor)].any()

    def lacks_noise(self) -> bool:
        """Whether a noise layer has no unit left."""
        return any(isinstance(rule, rules.Noise) and self.is_constant(rule.node) for rule in self.rules)

    def removed_constants(self, rule: Rule) -> Array:
        """What removed units add to each kept output of a kernel: (positions, outputs)."""
        ((source,), (output,)) = _ids(rule.node)
        constant = np.where(self.kept[source] | self.varying[source], 0, self.constants[source])
        return rule.linear(constant)[..., self.kept[output]].reshape(-1, self.kept[output].sum())

    def kept_units(self, tensor: keras.KerasTensor) -> Indices:
        """The kept units of a tensor: their indices."""
        return np.flatnonzero(self.kept[id(tensor)])

    def used_units(self, rule: Rule, position: int = 0) -> Indices:
        """The kept units of one of its inputs that a node uses: their indices."""
        return np.flatnonzero(self._kept_at(rule)[position][1])

    def multiply_adds(self) -> int:
        """MACs of the kept units; 0 for layers whose MACs are not known."""
        total, examples = 0, rules.examples([rule.node for rule in self.rules])
        for rule in self.rules:
            inputs, outputs = ([int(self.kept[tensor].sum()) for tensor in side] for side in _ids(rule.node))
            total += examples[id(rule.node)] * (rule.multiply_adds(inputs, outputs) or 0)
        return total


def _once_if_uniform(constant: Array) -> Array:
    """A constant with axes of length 1 for the positions, if it is the same at all of them."""
    first = constant[(slice(0, 1),) * (constant.ndim - 1)]
    return first if (constant == first).all() else constant


def _ids(node: Node) -> tuple[list[int], list[int]]:
    return [id(tensor) for tensor in node.input_tensors], [id(tensor) for tensor in node.outputs]
