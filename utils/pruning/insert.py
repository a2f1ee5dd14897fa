"""Noise in any network: which units can be removed, and a noise layer after each group of them."""

import collections
import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.inner_noise import Ones
from keras_sbp.layers.sbp import MIN_EVIDENCE_NATS, SBP
from keras_sbp.utils.pruning import graph, opening, rules
from keras_sbp.utils.pruning.groups import EXCLUDED, Groups, groups_of_model
from keras_sbp.utils.pruning.rules import Node, Rule

Readers = dict[int, list[Rule]]  # {tensor's id: the rules of the nodes that read it}
Site = tuple[keras.KerasTensor, Rule | None]  # where noise is, and what it follows: a batch normalization or a split


def insert(
    model: keras.Model,
    kl_weight: float = 0.0,
    exclude: Sequence[str] = (),
    threshold: float = 1.0,
    criterion: str = "snr",
    log_sigma: float = -5.0,
) -> keras.Model:
    """A copy of a network, weights included, with noise after every group of units that can be removed.

    Units form a group if they can only be removed together, like those that a residual connection adds up: theta (a +
    b) is theta a + theta b, so the group has one noise layer with several calls. The noise follows the last unitwise
    layer, where a dead unit is exactly 0.

    If a group feeds only batch-norm layers, as in DenseNet and pre-activation ResNets, the noise goes after them: batch
    statistics would otherwise cancel it, as theta is one number for the whole batch and BN(theta a) is BN(a). A batch
    normalization of a concatenation has noise of its own, and a unit is removed when all that follow it remove it. If a
    group feeds only splits, slices, or reshapes to positions, the noise goes after them, too.

    Args:
        model: Sequential or functional; nested models are flattened.
        kl_weight: see `SBP`; for `fit`, 1 / the number of training examples.
        exclude: names of layers whose units are all kept.
        threshold, criterion, log_sigma: see `SBP`.
    Returns:
        A functional model, whose outputs are the model's up to rounding, as the noise starts with a mean of 1. If the
        model's class has its own train_step or the like, the copy is of that class.
    Raises:
        ValueError: the model has no graph, is quantized or cannot be copied, a name in `exclude` is not a layer's,
            `kl_weight` is negative or not finite, all units would be dead from the start, or the model has noise and no
            more can be added.
        TypeError: `exclude` is a string.
    """
    model = _checked(model, exclude)
    if not 0 <= kl_weight < math.inf:
        raise ValueError(f"kl_weight={kl_weight}: give a number from 0, such as 1 / the number of training examples")
    initial = np.float64(0), np.float64(log_sigma)
    if criterion == "snr" and truncated_log_normal.snr(*initial) <= threshold:
        raise ValueError(f"with log_sigma={log_sigma} and threshold={threshold} all units are dead: use smaller ones")
    if criterion == "evidence" and truncated_log_normal.log_evidence_ratio(*initial) >= -MIN_EVIDENCE_NATS:
        raise ValueError(f"with log_sigma={log_sigma} and criterion='evidence' all units are dead: use a smaller one")
    # Its mean is 1 at the start.
    scale = 1 / float(truncated_log_normal.mean(*initial))
    settings = {"kl_weight": kl_weight, "threshold": threshold, "criterion": criterion}
    noisy = _with_noise(model, exclude, {**settings, "log_sigma": log_sigma, "scale": scale})
    given = _noise_names(model)
    if given and given == _noise_names(noisy):
        names = ", ".join(sorted(given)[:3]) + ", ..." * (len(given) > 3)
        raise ValueError(
            f"{model.name} has noise already ({names}), and no other units can be removed: give the network without it"
        )
    return noisy


def _noise_names(model: keras.Model) -> set[str]:
    return {node.operation.name for node in graph.nodes(model) if rules.is_noise(node.operation)}


def _checked(model: keras.Model, exclude: Sequence[str]) -> keras.Model:
    """The model without nested ones.

    Raises:
        ValueError, TypeError: see `insert`.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude={exclude!r} is a string: pass a list of names")
    graph.check_class(model)
    model = graph.flatten_nested(model)
    names = {node.operation.name for node in graph.nodes(model)}
    if unknown := set(exclude) - names:
        raise ValueError(
            f"exclude has {', '.join(sorted(unknown))}, but {model.name} has no such layer; its layers are "
            f"{', '.join(sorted(names))}"
        )
    return model


def _with_noise(model: keras.Model, exclude: Sequence[str], settings: dict) -> keras.Model:
    """A copy of a model with noise, see `insert`.

    Args:
        model: without nested models.
        settings: of the noise layers.
    """
    groups, why, found = groups_of_model(model, exclude)
    names = {node.operation.name for node in graph.nodes(model)}
    sites, _ = _noise_sites(groups, why, found)
    first_layers = {id(tensor): name for tensor, name in sites}
    of_groups = {groups.of(tensor): name for tensor, name in first_layers.items()}
    by_node = {id(rule.node): rule for rule in found if isinstance(rule, rules.Inner) and rule.op.name not in exclude}
    inputs = graph.new_inputs(model)
    noises, layers, thetas = {}, {}, {}  # by name; by the layer's id; {layer's id: {kind: theta}}

    def noise(first: str, op: keras.Operation) -> SBP:
        if first not in noises:
            name = f"{first}_noise"
            while name in names:
                name += "_"
            policy = getattr(op, "dtype_policy", None)
            noises[first] = SBP(**settings, dtype=policy, name=name)
        return noises[first]

    def with_noise(old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        first = first_layers.get(id(old))
        return new if first is None else noise(first, keras_private.producer(old).operation)(new)

    def with_inner_noise(node: Node, tensors: list[keras.KerasTensor]) -> list[keras.KerasTensor] | None:
        rule = by_node.get(id(node))
        firsts = rule.noise_names(of_groups.get(groups.of(id(node.outputs[0])))) if rule else {}
        if not firsts:
            return None
        policy = rule.op.dtype_policy
        if id(rule.op) not in layers:
            layers[id(rule.op)], thetas[id(rule.op)] = rule.with_noise(), {}
        theta = thetas[id(rule.op)]
        for kind, count in rule.noises().items():
            if kind not in theta:
                ones = Ones(count, name=f"{rule.op.name}_{kind}_ones", dtype=policy)
                theta[kind] = noise(firsts[kind], rule.op)(ones(inputs[0]))
        given = dict(zip(map(id, node.input_tensors), tensors))
        outputs = layers[id(rule.op)](rule.arguments(given) | theta)
        rules.set_weights(layers[id(rule.op)].layer, rule.layer.get_weights())
        return keras.tree.flatten(outputs)

    return graph.clone(model, with_inner_noise, with_noise, inputs)


def unprunable(model: keras.Model, exclude: Sequence[str] = ()) -> dict[str, str]:
    """{layer's name: why all its units are kept, or with which others they go}, for the layers with weights that get no
    noise of their own from `insert`.

    Args:
        model, exclude: see `insert`.
    Raises:
        ValueError, TypeError: see `insert`.
    """
    model = _checked(model, exclude)
    groups, why, found = groups_of_model(model, exclude)
    _, why = _noise_sites(groups, why, found)
    reasons = {}
    for rule in found:
        group = groups.of(id(rule.node.outputs[0]))
        if rule.is_source and getattr(rule.op, "weights", None) and group in why:
            reasons[rule.op.name] = why[group]
        elif isinstance(rule, rules.Barrier) and getattr(rule.op, "weights", None):
            reasons[rule.op.name] = opening.opened(rule.node)[1] or rules.reason(rule.node)
    return reasons


def _noise_sites(
    groups: Groups, why: dict[int, str], found: list[Rule]
) -> tuple[list[tuple[keras.KerasTensor, str]], dict[int, str]]:
    """[(tensor, name of the first layer of its group)], the tensors to multiply by noise; and `why`, completed by the
    groups that get none.

    Args:
        groups, why, found: of `groups.groups_of_model`.
    """
    readers = collections.defaultdict(list)
    for rule in found:
        for tensor in rule.node.input_tensors:
            readers[id(tensor)].append(rule)
    names, ends = {}, collections.defaultdict(list)
    for rule in found:
        for output in rule.own_outputs(readers):
            end = _last_unitwise_output(output, readers)
            # The bias of a depthwise convolution would change the statistics of a normalization that reads it.
            is_normalized = any(isinstance(reader, rules.Normalization) for reader in readers[id(end)])
            if rule.is_source and (is_normalized or not rule.unitwise):
                group = groups.of(id(output))
                names.setdefault(group, rule.op.name)
                ends[group].append(end)
    effective = {group: _effective_sites(tensors, readers) for group, tensors in ends.items()}
    excluded = {id(tensor) for group in effective if why.get(group) == EXCLUDED for tensor, _ in effective[group]}
    sites, without = {}, {}
    for group, candidates in effective.items():
        if group in why:
            continue
        free = [(x, norm) for x, norm in candidates if id(x) not in excluded and groups.of(id(x)) not in why]
        for tensor, norm in free:
            own = groups.of(id(tensor))
            if own not in names:
                # Like a concatenation or a part of a split, it has no layer with weights to be named after.
                names[own] = norm.op.name + "_" * sum(name.rstrip("_") == norm.op.name for name in names.values())
            sites[id(tensor)] = tensor, names[own]
        if not free:
            _, after = candidates[0]
            together = "normalized together with units that are kept"
            without[group] = together if isinstance(after, rules.BatchNorm) else f"kept after {after.op.name}"
    return list(sites.values()), why | without


def _effective_sites(tensors: Iterable[keras.KerasTensor], readers: Readers) -> list[Site]:
    """Where noise on a group of units has an effect in training: on these tensors, the group's ends, or after the batch
    normalizations that alone read them; and after a split or the like, whose parts may be in other groups."""
    sites, whole = [], []
    for tensor in tensors:
        parts = readers[id(tensor)]
        if not parts or not all(rule.regroups for rule in parts):
            whole.append(tensor)
            continue
        for rule in parts:
            after = _effective_sites([_last_unitwise_output(x, readers) for x in rule.node.outputs], readers)
            sites += [(output, later or rule) for output, later in after]
    found = [_batch_norms(tensor, readers, {}) for tensor in whole]
    if not all(found):
        return sites + [(tensor, None) for tensor in whole]
    for norm in {id(norm): norm for norms in found for norm in norms}.values():
        after = _effective_sites([_last_unitwise_output(norm.node.outputs[0], readers)], readers)
        sites += [(tensor, later or norm) for tensor, later in after]
    return sites


def _batch_norms(tensor: keras.KerasTensor, readers: Readers, seen: dict[int, list[Rule] | None]) -> list[Rule] | None:
    """The batch normalizations that read a tensor, directly or past layers that carry a unit's scale to them; None if
    there are other readers, too.

    Args:
        seen: {tensor's id: the result}, of earlier calls.
    """
    if id(tensor) in seen:
        return seen[id(tensor)]
    norms = {}
    for rule in readers[id(tensor)]:
        if isinstance(rule, rules.BatchNorm):
            norms[id(rule)] = rule
        elif rule.carries_scale:
            further = _batch_norms(rule.node.outputs[0], readers, seen)
            norms = None if further is None else norms | {id(norm): norm for norm in further}
        else:
            norms = None
        if norms is None:
            break
    seen[id(tensor)] = list(norms.values()) if norms else None
    return seen[id(tensor)]


def _last_unitwise_output(tensor: keras.KerasTensor, readers: Readers) -> keras.KerasTensor:
    """The output of the last of the unitwise layers of one input that follow a tensor one after the other."""
    while len(readers[id(tensor)]) == 1:
        (rule,) = readers[id(tensor)]
        if not rule.unitwise or len(rule.node.input_tensors) > 1:
            break
        (tensor,) = rule.node.outputs
    return tensor
