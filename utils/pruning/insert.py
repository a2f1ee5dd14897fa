"""Noise in any network: where the units that can go are, and a layer of noise after each group of them."""

import collections

import keras
import numpy as np

from layers import truncated_log_normal
from layers.sbp import SBP
from utils.pruning import graph, rules

LOG_SIGMA = -5.0  # where log sigma starts, as in the paper


def insert(model, kl_weight=0.0, exclude=(), threshold=1.0):
    """A copy of a network with noise after every group of units that can go, weights and all.

    Units are of one group if they can only go together, as those that a residual connection adds up: theta (a + b) is
    theta a + theta b, so the group has one layer of noise, which is in several places. It follows the last layer that
    treats units alone, where a unit that is dead is exactly 0.

    Args:
        model: Sequential or functional; models in it are opened.
        kl_weight: of `SBP`; for `fit`, 1 / the number of training examples.
        exclude: names of layers whose units all stay.
        threshold: of `SBP`.
    Returns:
        A functional model, whose outputs are the model's up to rounding: the noise starts with a mean of 1.
    Raises:
        ValueError: the model is a subclass of keras.Model without a graph, or a name in `exclude` is no layer's.
    """
    model = graph.opened(model)
    names = {node.operation.name for node in graph.nodes(model)}
    if unknown := set(exclude) - names:
        raise ValueError(f"exclude has {', '.join(sorted(unknown))}, and {model.name} no layer of that name")
    places = _places(model, exclude)
    scale = 1 / float(truncated_log_normal.mean(np.float64(0), np.float64(LOG_SIGMA)))
    noises = {}

    def noise(first, tensor):
        if first not in noises:
            settings = {"kl_weight": kl_weight, "threshold": threshold, "log_sigma": LOG_SIGMA, "scale": scale}
            noises[first] = SBP(**settings, name=f"{first}_noise")
        return noises[first](tensor)

    return copied(model, {id(tensor): lambda x, first=first: noise(first, x) for tensor, first in places})


def copied(model, after):
    """A copy of a model, weights and all, with changes.

    Args:
        model: without models in it.
        after: {id of a tensor: from its copy to what its readers get instead}.
    """
    built, layers = {id(tensor): tensor for tensor in model.inputs}, {}
    for node in graph.nodes(model):
        if not graph.is_input(node):
            op, inputs = node.operation, [built[id(tensor)] for tensor in node.input_tensors]
            if isinstance(op, keras.Layer) and id(op) not in layers:
                layers[id(op)] = type(op).from_config(op.get_config())
            layer = layers.get(id(op), op)
            outputs = graph.call(node, layer, inputs)
            if isinstance(op, keras.Layer):
                layer.set_weights(op.get_weights())
            built |= zip(map(id, node.outputs), outputs)
        for tensor in node.outputs:
            if id(tensor) in after:
                built[id(tensor)] = after[id(tensor)](built[id(tensor)])
    return graph.rebuilt(model, [built[id(tensor)] for tensor in model.outputs])


def _places(model, exclude):
    """[(tensor, name of its group's first layer)]: the tensors that are to be multiplied by noise."""
    found = [rules.of(node) for node in graph.nodes(model)]
    readers = collections.defaultdict(list)
    for rule in found:
        for tensor in rule.node.input_tensors:
            readers[id(tensor)].append(rule)
    groups, staying = _Groups(), set(map(id, model.outputs))
    for rule in found:
        tensors = [*rule.node.input_tensors, *rule.node.outputs]
        if isinstance(rule, rules.Product):
            # One factor is enough: the others only say how much of a unit there is.
            main = next(x for x in rule.node.input_tensors if x.shape[1:] == rule.node.outputs[0].shape[1:])
            groups.join([main, rule.node.outputs[0]])
            staying |= {id(x) for x in rule.node.input_tensors if x is not main}
        elif rule.aligned:
            whole = rules.width(rule.node.outputs[0])
            groups.join([tensor for tensor in tensors if rules.width(tensor) == whole])
            staying |= {id(tensor) for tensor in tensors if rules.width(tensor) != whole}
        elif isinstance(rule, (rules.Barrier, rules.Input, rules.Take)):
            staying |= set(map(id, tensors))
        if rule.op.name in exclude or isinstance(rule, rules.Noise):
            staying |= set(map(id, rule.node.outputs))
    stay = {groups.of(tensor) for tensor in staying}
    places, first = [], {}
    for rule in found:
        (output, *_) = rule.node.outputs
        if isinstance(rule, rules.Weighted) and not rule.aligned and groups.of(id(output)) not in stay:
            name = first.setdefault(groups.of(id(output)), rule.op.name)
            place = _last_alone(output, readers)
            if id(place) not in {id(tensor) for tensor, _ in places}:
                places.append((place, name))
    return places


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
