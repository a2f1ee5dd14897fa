"""Units of zeros after those of a network's convolutions, up to a hardware-friendly multiple.

On a CPU, batch normalization of 59 units takes several times as long as of 64; padding the convolutions of a pruned
VGG-like shortens its training step from 0.2 to 0.13 seconds. On a GPU, convolutions of 59 units miss the fast kernels,
and a pruned VGG-like is slower than the whole one; padded to multiples of 8 it is twice as fast (docs/performance.md).
"""

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.graph import Tensors
from keras_sbp.utils.pruning.rules import Node


def pad_filters(model: keras.Model, multiple: int) -> keras.Model:
    """A copy of a network with units of zeros after those of its convolutions, up to a multiple.

    It computes the same. With activations that are 0 at 0, like ReLU, the zeros remain in training: the weights into
    such a unit get no gradient through the zeros out of it, and vice versa.

    Args:
        model: as `shrink` returns it.
        multiple: 8 for a GPU; 16 for training on a CPU with AVX-512.
    Raises:
        ValueError: a layer with weights is called more than once, or the model has no graph or cannot be copied.
    """
    graph.check_class(model)
    model = graph.flatten_nested(model)
    calls = [node.operation.name for node in graph.nodes(model) if getattr(node.operation, "weights", None)]
    if shared := sorted({name for name in calls if calls.count(name) > 1}):
        raise ValueError(
            f"{model.name} calls {', '.join(shared)} more than once, and shared layers cannot be padded: do without"
        )
    layers = {}

    def padded(node: Node, tensors: Tensors) -> Tensors:
        op, rule, counts = node.operation, rules.of(node), [old.shape[-1] for old in node.input_tensors]
        settings = rule.padded_settings(multiple)
        same = len({(count, new.shape[-1]) for count, new in zip(counts, tensors)}) == 1
        if not (settings or rule.passes_padding) or not same:
            tensors = [_first_units(tensor, count) for tensor, count in zip(tensors, counts)]
        if not isinstance(op, keras.Layer):
            return keras_private.call(node, op, tensors)
        if id(op) not in layers:
            layers[id(op)] = rules.clone_layer(op, **settings)
        layer = layers[id(op)]
        outputs = keras_private.call(node, layer, tensors)
        rules.set_weights(layer, [_pad(old, new.shape) for old, new in zip(op.get_weights(), layer.weights)])
        return outputs

    ends = {id(tensor) for tensor in model.outputs}

    def unpadded(old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        return _first_units(new, old.shape[-1]) if id(old) in ends else new

    return graph.clone(model, padded, unpadded)


def copy_unpadded_weights(model: keras.Model, padded: keras.Model) -> None:
    """Set the weights of a network to those of `pad_filters(model)` that are not padding."""
    weights = {weight.path: np.asarray(weight) for weight in padded.weights}
    for weight in model.weights:
        weight.assign(weights[weight.path][tuple(map(slice, weight.shape))])


def _first_units(tensor: keras.KerasTensor, count: int) -> keras.KerasTensor:
    return tensor if tensor.shape[-1] == count else tensor[..., :count]


def _pad(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(weight, [(0, size - old) for old, size in zip(weight.shape, shape)])
