"""Noise in any network: where the units that can go are, and a layer of noise after each group of them."""

import collections

import numpy as np

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.pruning import graph, rules

LOG_SIGMA = -5.0  # where log sigma starts, as in the paper
EXCLUDED = "excluded"  # why units stay that `exclude` names


def insert(model, kl_weight=0.0, exclude=(), threshold=1.0):
    """A copy of a network with noise after every group of units that can go, weights and all.

    Units are of one group if they can only go together, as those that a residual connection adds up: theta (a + b) is
    theta a + theta b, so the group has one layer of noise, which is in several places. It follows the last layer that
    treats units alone, where a unit that is dead is exactly 0.

    If only batch normalisations read a group, as in DenseNet and in ResNets with activations first, noise on it would
    do nothing in training: BN(theta a) is BN(a), as theta is one number for the whole batch. So it follows each of
    these. A batch normalisation of a concatenation has noise of its own, and a unit goes when none of those that read
    it hands it on.

    Args:
        model: Sequential or functional; models in it are opened.
        kl_weight: of `SBP`; for `fit`, 1 / the number of training examples.
        exclude: names of layers whose units all stay, a list.
        threshold: of `SBP`.
    Returns:
        A functional model, whose outputs are the model's up to rounding: the noise starts with a mean of 1.
    Raises:
        ValueError: the model is a subclass of keras.Model without a graph, or a name in `exclude` is no layer's.
        TypeError: `exclude` is no list.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude={exclude!r} is a name: give a list of names")
    model = graph.flatten_nested(model)
    names = {node.operation.name for node in graph.nodes(model)}
    if unknown := set(exclude) - names:
        raise ValueError(
            f"exclude has {', '.join(sorted(unknown))}, and {model.name} no layer of that name; it has "
            f"{', '.join(sorted(names))}"
        )
    places, _ = _places(*_groups(model, exclude))
    firsts = {id(tensor): first for tensor, first in places}
    scale = 1 / float(truncated_log_normal.mean(np.float64(0), np.float64(LOG_SIGMA)))
    noises = {}

    def with_noise(old, new):
        first = firsts.get(id(old))
        if first is None:
            return new
        if first not in noises:
            settings = {"kl_weight": kl_weight, "threshold": threshold, "log_sigma": LOG_SIGMA, "scale": scale}
            policy = getattr(old._keras_history.operation, "dtype_policy", None)
            name = f"{first}_noise"
            while name in names:
                name += "_"
            noises[first] = SBP(**settings, dtype=policy, name=name)
        return noises[first](new)

    return graph.clone(model, after=with_noise)


def unprunable(model, exclude=()):
    """{layer's name: why all its units stay}, of the layers with weights after which `insert` puts no noise."""
    model = graph.flatten_nested(model)
    groups, why, found = _groups(model, exclude)
    _, why = _places(groups, why, found)
    reasons = {}
    for rule in found:
        group = groups.of(id(rule.node.outputs[0]))
        if isinstance(rule, rules.Weighted) and group in why:
            reasons[rule.op.name] = why[group]
        elif isinstance(rule, rules.Barrier) and getattr(rule.op, "weights", None):
            reasons[rule.op.name] = f"no rule for {type(rule.op).__name__}"
    return reasons


def _places(groups, why, found):
    """[(tensor, name of the first layer of its group)]: the tensors that are to be multiplied by noise; and `why`, also
    of the groups of which none is left.

    Args: of `_groups`.
    """
    readers = collections.defaultdict(list)
    for rule in found:
        for tensor in rule.node.input_tensors:
            readers[id(tensor)].append(rule)
    names, ends = {}, collections.defaultdict(list)
    for rule in found:
        (output, *_) = rule.node.outputs
        if isinstance(rule, rules.Weighted) and not rule.aligned:
            group = groups.of(id(output))
            names.setdefault(group, rule.op.name)
            ends[group].append(_last_alone(output, readers))
    heard = {group: _heard(tensors, readers) for group, tensors in ends.items()}
    all_stay = {id(place) for group in heard if why.get(group) == EXCLUDED for place, _ in heard[group]}
    places, bare = {}, {}
    for group, where in heard.items():
        if group in why:
            continue
        free = [at for at in where if id(at[0]) not in all_stay and groups.of(id(at[0])) not in why]
        for place, norm in free:
            # A concatenation is a group of its own, and has no layer with weights to be called after.
            there = groups.of(id(place))
            name = names[there] if there in names else names.setdefault(there, norm.op.name)
            places[id(place)] = place, name
        if not free:
            bare[group] = "normalised together with units that stay"
    return list(places.values()), why | bare


def _heard(tensors, readers):
    """[(tensor, rule of a batch normalisation)]: where noise on the units of a group is heard in training, and after
    which batch normalisation that is, if it is not on these tensors themselves, its ends."""
    found = [_normalisations(tensor, readers, {}) for tensor in tensors]
    if not all(found):
        return [(tensor, None) for tensor in tensors]
    places = []
    for norm in {id(norm): norm for norms in found for norm in norms}.values():
        after = _heard([_last_alone(norm.node.outputs[0], readers)], readers)
        places += [(place, later or norm) for place, later in after]
    return places


def _normalisations(tensor, readers, seen):
    """The batch normalisations that a tensor's readers are, past sums, concatenations and pooling; None: others, too.

    Args:
        seen: {id of a tensor: what this function said of it}.
    """
    if id(tensor) in seen:
        return seen[id(tensor)]
    norms = {}
    for rule in readers[id(tensor)]:
        if isinstance(rule, rules.Normalisation):
            norms[id(rule)] = rule
        elif isinstance(rule, (rules.Merge, rules.Concatenate, rules.Spatial, rules.ZeroPadding)):
            further = _normalisations(rule.node.outputs[0], readers, seen)
            norms = None if further is None else norms | {id(norm): norm for norm in further}
        else:
            norms = None
        if norms is None:
            break
    seen[id(tensor)] = list(norms.values()) if norms else None
    return seen[id(tensor)]


def _groups(model, exclude):
    """The groups of a model's tensors, {group: why its units stay}, and the rules of its nodes."""
    found = [rules.of(node) for node in graph.nodes(model)]
    groups, staying, factors = _Groups(), {id(tensor): "output of the network" for tensor in model.outputs}, []
    for rule in found:
        inputs, (output, *_) = rule.node.input_tensors, rule.node.outputs
        same = [tensor for tensor in inputs if rules.width(tensor) == rules.width(output)]
        others = [tensor for tensor in inputs if rules.width(tensor) != rules.width(output)]
        if isinstance(rule, rules.Product):
            # One factor is enough: the others only say how much of a unit there is.
            main = next((tensor for tensor in same if tensor.shape[1:] == output.shape[1:]), same[0])
            same, others = [main], [tensor for tensor in inputs if tensor is not main]
        if rule.aligned:
            groups.join([*same, output])
            factors += [(tensor, output, rule.op.name) for tensor in others]
        elif isinstance(rule, (rules.Barrier, rules.Input, rules.Take)):
            staying |= {id(tensor): f"read by {rule.op.name} ({type(rule.op).__name__})" for tensor in inputs}
            staying |= {id(tensor): f"given by {rule.op.name}" for tensor in rule.node.outputs}
        if rule.op.name in exclude:
            staying |= {id(tensor): EXCLUDED for tensor in rule.node.outputs}
    for tensor, output, name in factors:
        # x * sigmoid(x) is 0 where x is; a factor of another group is no unit of the product.
        if groups.of(id(tensor)) != groups.of(id(output)):
            staying[id(tensor)] = f"factor in {name}"
    why = {groups.of(tensor): reason for tensor, reason in staying.items()}
    _hand_back(why, groups, found)
    noises = {id(rule.node.outputs[0]): rule.op.name for rule in found if isinstance(rule, rules.Noise)}
    return groups, why | {groups.of(tensor): f"has {name} already" for tensor, name in noises.items()}, found


def _hand_back(why, groups, found):
    """Let units stay that are, under other numbers, units that stay: of a concatenation's parts, of what is flattened.

    Args:
        why: {group: why its units stay}, in which further groups are put.
        groups, found: of `_groups`.
    """
    known = None
    while known != len(why):
        known = len(why)
        for rule in reversed(found):
            reason = why.get(groups.of(id(rule.node.outputs[0])))
            if reason and not rule.aligned:
                whole = [np.ones(rules.width(tensor), bool) for tensor in rule.node.outputs]
                for tensor, units in zip(rule.node.input_tensors, rule.pins(whole, whole)):
                    if units.all():
                        why.setdefault(groups.of(id(tensor)), reason)


def _last_alone(tensor, readers):
    """The output of the last of the layers after a tensor that treat its units alone, one after the other."""
    while len(readers[id(tensor)]) == 1:
        (rule,) = readers[id(tensor)]
        if not rule.aligned or isinstance(rule, rules.Merge):
            break
        (tensor,) = rule.node.outputs
    return tensor


class _Groups:
    """Tensors of whose units those of one number belong together: union-find."""

    def __init__(self):
        self.parents = {}

    def of(self, tensor):
        """What stands for the group of a tensor's id."""
        while self.parents.get(tensor, tensor) != tensor:
            tensor = self.parents[tensor]
        return tensor

    def join(self, tensors):
        first, *others = map(id, tensors)
        for other in others:
            self.parents[self.of(other)] = self.of(first)
