"""Counting: multiply-adds (MACs) and units of a network, and the MACs that each unit costs."""

import warnings

import numpy as np

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.liveness import Liveness


def multiply_adds(model):
    """Multiply-adds of a Keras model for one example: of what multiplies units by weights and sums up, as the paper
    counts FLOPs, and of attention's products.

    Warns (UserWarning) of layers whose multiply-adds are not known, which are left out, and of layers whose input is of
    any size, which are counted for one position.

    Raises:
        ValueError: the model is a subclass of keras.Model without a graph.
    """
    total, unknown, unsized = 0, set(), set()
    for node in graph.nodes(graph.flatten_nested(model)):
        inputs, outputs = ([rules.width(tensor) for tensor in side] for side in (node.input_tensors, node.outputs))
        found = rules.of(node).multiply_adds(inputs, outputs)
        if found is None:
            unknown.add(type(node.operation).__name__)
        elif found and any(None in tensor.shape[1:-1] for tensor in (*node.input_tensors, *node.outputs)):
            unsized.add(node.operation.name)
        total += found or 0
    if unknown:
        warnings.warn(f"multiply-adds without those of {', '.join(sorted(unknown))}, which are not known", stacklevel=2)
    if unsized:
        warnings.warn(f"multiply-adds of {', '.join(sorted(unsized))} for a size of 1, as any will do", stacklevel=2)
    return total


def units(model):
    """{layer's name: its units} of a model's dense layers and convolutions, of all kinds."""
    found = map(rules.of, graph.nodes(graph.flatten_nested(model)))
    return {rule.op.name: rules.width(rule.node.outputs[0]) for rule in found if isinstance(rule, rules.Weighted)}


def kernels(model):
    """{layer's name: shape of its kernel} of a model's dense and convolution layers."""
    return {layer.name: tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")}


def unit_costs(model):
    """{noise layer's name: the multiply-adds that go when one of its units goes} of a network with every unit alive.

    Also of one where weights are 0: those of a last layer that starts there, or of filters that are out of use.
    """
    model = graph.clone(model)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    alive = {noise.name: np.ones(len(noise.multiplier())) for noise in _noises(model)}
    whole = Liveness(model, alive).multiply_adds()
    without = {name: {**alive, name: units - np.eye(len(units))[0]} for name, units in alive.items()}
    return {name: whole - Liveness(model, left).multiply_adds() for name, left in without.items()}


def relative_costs(model):
    """`unit_costs` relative to what a unit of this network costs on average, so that the mean of all units is 1."""
    costs = unit_costs(model)
    units = {noise.name: len(noise.multiplier()) for noise in _noises(graph.flatten_nested(model))}
    total = sum(costs[name] * count for name, count in units.items())
    return {name: cost * sum(units.values()) / total if total else 0.0 for name, cost in costs.items()}


def _noises(model):
    """The layers of noise of a model without models in it."""
    return [node.operation for node in graph.nodes(model) if isinstance(rules.of(node), rules.Noise)]
