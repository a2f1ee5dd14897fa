"""Groups of units: those that can only be removed together, in all the tensors that they are in."""

import itertools
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.rules import Rule

# Why units get no noise of their own: those of outputs, of layers in `exclude`, of factors of a product that is pruned.
OUTPUT, EXCLUDED, GOES_WITH = "output of the network", "excluded", "its units go with those of"


class Groups:
    """Sets of tensors in which units of the same number belong together: union-find."""

    def __init__(self):
        self.parents: dict[int, int] = {}

    def of(self, tensor: int) -> int:
        """What stands for the group of a tensor's id."""
        while self.parents.get(tensor, tensor) != tensor:
            tensor = self.parents[tensor]
        return tensor

    def join(self, tensors: Iterable[keras.KerasTensor]) -> None:
        for first, other in itertools.pairwise(map(id, tensors)):
            self.parents[self.of(other)] = self.of(first)


def groups_of_model(model: keras.Model, exclude: Sequence[str]) -> tuple[Groups, dict[int, str], list[Rule]]:
    """The groups of a model's tensors, {group: why it gets no noise of its own}, and the rules of its nodes."""
    found = rules.of_network(graph.nodes(model), model.outputs)
    groups, kept, factors = Groups(), {id(tensor): OUTPUT for tensor in model.outputs}, []
    calls: dict[int, list[keras.KerasTensor]] = {}  # {layer's id: the inputs and the output of its first call}
    for rule in found:
        inputs, (output, *_) = rule.node.input_tensors, rule.node.outputs
        if rule.unitwise:
            same, scaling = rule.joined_inputs()
            groups.join([*same, output])
            factors += [(tensor, output, rule.op.name) for tensor in scaling]
        elif rule.fixed:
            kept |= {id(tensor): f"read by {rule.op.name} ({type(rule.op).__name__})" for tensor in inputs}
            kept |= {id(tensor): f"output of {rule.op.name} ({type(rule.op).__name__})" for tensor in rule.node.outputs}
        else:
            for tied in rule.tied():
                # From an input that stays whole, units can be selected.
                groups.join(x for x in tied if id(x) not in kept or any(x is own for own in rule.node.outputs))
        if rule.op.name in exclude:
            kept |= {id(tensor): EXCLUDED for tensor in rule.node.outputs}
        if getattr(rule.op, "weights", None):
            # All calls of a layer share its weights, and lose the same units.
            for tensor, other in zip([*inputs, output], calls.setdefault(id(rule.op), [*inputs, output])):
                if rules.width(tensor) == rules.width(other):
                    groups.join([other, tensor])
    for tensor, output, name in factors:
        # x * sigmoid(x) is 0 where x is; a factor of another group is not a unit of the product.
        if groups.of(id(tensor)) != groups.of(id(output)):
            kept[id(tensor)] = f"factor in {name}"
    why = {groups.of(tensor): reason for tensor, reason in kept.items()}
    _propagate_kept(why, groups, found)
    stays = {groups.of(id(tensor)) for tensor, output, _ in factors if groups.of(id(output)) in why}
    for tensor, _, name in factors:
        factor = groups.of(id(tensor))
        if why.get(factor) == f"factor in {name}" and factor not in stays:
            why[factor] = f"{GOES_WITH} {name}"
    noises = {id(rule.node.outputs[0]): rule.op.name for rule in found if isinstance(rule, rules.Noise)}
    return groups, why | {groups.of(tensor): f"already has {name}" for tensor, name in noises.items()}, found


def _propagate_kept(why: dict[int, str], groups: Groups, found: list[Rule]) -> None:
    """Add to `why` the groups whose units are, under other numbers, kept units: parts of a concatenation, and what is
    flattened.

    Args:
        why, groups, found: of `groups_of_model`.
    """
    known = None
    while known != len(why):
        known = len(why)
        for rule in reversed(found):
            reasons = [why.get(groups.of(id(tensor))) for tensor in rule.node.outputs]
            if any(reasons) and not rule.unitwise:
                kept = [np.full(rules.width(x), bool(reason)) for x, reason in zip(rule.node.outputs, reasons)]
                for tensor, units in zip(rule.node.input_tensors, rule.required_inputs(kept, kept)):
                    if units.all():
                        why.setdefault(groups.of(id(tensor)), next(filter(None, reasons)))
