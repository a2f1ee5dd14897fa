"""Counting: MACs (multiply-adds) and units of a network, and the MACs that each unit costs."""

import warnings

import keras
import numpy as np

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.liveness import Liveness


def multiply_adds(model: keras.Model) -> int:
    """MACs of a model for one example: products of units and weights that are summed up, which is what the paper counts
    as FLOPs, and the products in attention.

    Warns (UserWarning) of layers whose MACs are not known, and leaves them out; and of layers whose input may have any
    size, and counts them for one position.

    Args:
        model: functional or Sequential.
    Raises:
        ValueError: the model has no graph.
    """
    total, unknown, unsized = 0, set(), set()
    nodes = graph.nodes(graph.flatten_nested(model))
    examples = rules.examples(nodes)
    for node in nodes:
        inputs, outputs = ([rules.width(tensor) for tensor in side] for side in (node.input_tensors, node.outputs))
        count = rules.of(node).multiply_adds(inputs, outputs)
        if count is None:
            unknown.add(type(node.operation).__name__)
        elif count and any(None in tensor.shape[1:-1] for tensor in (*node.input_tensors, *node.outputs)):
            unsized.add(node.operation.name)
        total += examples[id(node)] * (count or 0)
    if unknown:
        warnings.warn(f"multiply-adds without those of {', '.join(sorted(unknown))}, which are not known", stacklevel=2)
    if unsized:
        warnings.warn(
            f"multiply-adds of {', '.join(sorted(unsized))} are counted for one position, as inputs may have any size",
            stacklevel=2,
        )
    return total


def units(model: keras.Model) -> dict[str, int]:
    """{layer's name: number of units} of a model's dense layers and convolutions of all kinds."""
    found = map(rules.of, graph.nodes(graph.flatten_nested(model)))
    return {rule.op.name: rules.width(rule.node.outputs[0]) for rule in found if isinstance(rule, rules.Kernel)}


def kernels(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """{layer's name: shape of its kernel} of a model's dense, convolution and recurrent layers; of the projections of
    attention by their paths, as in "attention/query"."""
    found = {weight.path.rpartition("/")[0]: tuple(weight.shape) for weight in model.weights if weight.name == "kernel"}
    return {name.removesuffix(f"/{name.split('/')[0]}_cell"): shape for name, shape in found.items()}


def unit_costs(model: keras.Model) -> dict[str, int]:
    """{noise layer's name: MACs saved by removing one of its units} of a network with every unit live.

    A dimension of one head of attention saves none alone, as all heads have to lose as many: its cost is 0. Weights
    that are 0 count as well, like those of a last layer that starts at 0, or of filters that are not used.
    """
    model, rng = graph.clone(model), np.random.default_rng(0)
    # Not all the same: a table with the same number for each word does not vary with the input.
    model.set_weights([rng.uniform(1, 2, weight.shape).astype(weight.dtype) for weight in model.get_weights()])
    live = {name: np.ones(count) for name, count in _unit_counts(model).items()}
    whole = Liveness(model, live).multiply_adds()
    without = {name: {**live, name: np.where(np.arange(len(units)), units, 0)} for name, units in live.items()}
    return {name: whole - Liveness(model, left).multiply_adds() for name, left in without.items()}


def relative_costs(model: keras.Model) -> dict[str, float]:
    """`unit_costs` relative to their mean over all units of the network."""
    costs = unit_costs(model)
    counts = _unit_counts(graph.flatten_nested(model))
    total = sum(costs[name] * count for name, count in counts.items())
    return {name: cost * sum(counts.values()) / total if total else 0.0 for name, cost in costs.items()}


def _unit_counts(model: keras.Model) -> dict[str, int]:
    """{noise layer's name: number of its units} of a model without nested models."""
    noises = [node for node in graph.nodes(model) if rules.is_noise(node.operation)]
    return {node.operation.name: node.outputs[0].shape[-1] for node in noises}
