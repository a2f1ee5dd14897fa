"""Units of zeros behind those of a network's convolutions, up to a number that the hardware is fast with.

On a CPU, batch normalisation of 59 units takes several times as long as that of 64. Filling up the convolutions of a
pruned VGG-like shortens its training step from 0.2 to 0.13 seconds. On a GPU, convolutions of 59 units miss the fast
kernels, and a pruned VGG-like is slower than the whole one. With multiples of eight units it is twice as fast as the
whole one (docs/performance.md).
"""

import keras
import numpy as np

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.rules.rule import by_last_axis

# What leaves the units of its inputs where they are.
ALONE = (
    keras.layers.Activation,
    keras.layers.Add,
    *rules.Normalisation.KINDS,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
)


def pad_filters(model, multiple):
    """A copy of a network with units of zeros behind those of its convolutions, up to a multiple.

    It computes the same. Where an activation has 0 at 0, as ReLU has, the zeros stay in training: what leads to such a
    unit gets no gradient through the zeros that lead from it, nor the other way round.

    Args:
        model: as `shrink` leaves it.
        multiple: an int; 8 for a GPU, 16 for a CPU with AVX-512, while it trains.
    Raises:
        ValueError: a layer with weights is in several places, or it is no functional or Sequential network of layers
            that can be copied.
    """
    model = graph.flatten_nested(model)
    places = [node.operation.name for node in graph.nodes(model) if getattr(node.operation, "weights", None)]
    if twice := sorted({name for name in places if places.count(name) > 1}):
        raise ValueError(f"{model.name} has {', '.join(twice)} in several places, so it can't be filled up with zeros")
    layers = {}

    def instead(node, tensors):
        op, counts = node.operation, [old.shape[-1] for old in node.input_tensors]
        widths = [new.shape[-1] for new in tensors]
        # Sums have no axis.
        alone = len(tensors) > 1 or by_last_axis(node)
        alone = alone and rules.treats_units_alone(getattr(op, "activation", keras.activations.linear))
        fills = alone and rules.is_of(op, keras.layers.Conv2D) and op.groups == 1
        if not (fills or alone and rules.is_of(op, ALONE)) or len(set(zip(counts, widths))) > 1:
            tensors = [_first(tensor, count) for tensor, count in zip(tensors, counts)]
        if not isinstance(op, keras.Layer):
            return graph.call(node, op, tensors)
        if id(op) not in layers:
            filters = {"filters": -(-op.filters // multiple) * multiple} if fills else {}
            layers[id(op)] = graph.clone_layer(op, **filters)
        layer = layers[id(op)]
        outputs = graph.call(node, layer, tensors)
        graph.take_weights(layer, [_filled(old, new.shape) for old, new in zip(op.get_weights(), layer.weights)], op)
        return outputs

    ends = {id(tensor) for tensor in model.outputs}
    return graph.clone(model, instead, lambda old, new: _first(new, old.shape[-1]) if id(old) in ends else new)


def _first(tensor, count):
    return tensor if tensor.shape[-1] == count else tensor[..., :count]


def _filled(weight, shape):
    return np.pad(weight, [(0, size - old) for old, size in zip(weight.shape, shape)])


def copy_unpadded_weights(model, wide):
    """Give a network the weights of `pad_filters(model)`, those that are not of the zeros."""
    weights = {weight.path: np.asarray(weight) for weight in wide.weights}
    for weight in model.weights:
        weight.assign(weights[weight.path][tuple(map(slice, weight.shape))])
