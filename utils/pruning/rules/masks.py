"""Masks that come with tensors, like that of an Embedding with mask_zero=True, where a layer becomes others."""

import inspect

import keras
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node


def pass_on(node: Node, tensors: list[keras.KerasTensor], outputs: list[keras.KerasTensor]) -> bool:
    """Let the masks that come with a layer's outputs come with others in place of them; whether there are any.

    Args:
        node: a call of the layer.
        tensors: in place of `node.input_tensors`.
        outputs: in place of `node.outputs`.
    """
    if all(keras_private.mask_of(tensor) is None for tensor in node.outputs):
        return False
    args, kwargs = keras_private.arguments(node, tensors)
    first = [*args, *kwargs.values()][0]
    masks = node.operation.compute_mask(first, tree.map_structure(keras_private.mask_of, first))
    for tensor, mask in zip(outputs, tree.flatten(masks)):
        if mask is not None and keras_private.mask_of(tensor) is None:
            keras_private.set_mask(tensor, mask)
    return True


def implicit(node: Node, tensors: list[keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """{argument: mask}, the masks that come with the inputs of a recorded call of a layer with several inputs, as
    explicit arguments of a call with `tensors` in place of them.

    Keras passes these on when the model runs, if each operation up to there passes on masks. Operations of keras.ops
    do not.
    """
    if not isinstance(node.operation, keras.Layer) or len(tensors) < 2:
        return {}
    signature = inspect.signature(node.operation.call)
    args, kwargs = keras_private.arguments(node, tensors)
    given = signature.bind(*args, **kwargs).arguments
    symbols = [name for name, value in given.items() if any(map(keras.backend.is_keras_tensor, tree.flatten(value)))]
    if "mask" in signature.parameters and given.get("mask") is None and len(symbols) == 1:
        masks = tree.map_structure(keras_private.mask_of, given[symbols[0]])
        return {"mask": masks} if any(mask is not None for mask in masks) else {}
    names = [name for name in given if f"{name}_mask" in signature.parameters and given.get(f"{name}_mask") is None]
    found = {f"{name}_mask": keras_private.mask_of(given[name]) for name in names}
    found = {name: mask for name, mask in found.items() if mask is not None}
    if isinstance(node.operation, keras.layers.MultiHeadAttention) and "query_mask" in found:
        # Its call reads only the query's own mask, and drops the argument.
        own = ops.expand_dims(found.pop("query_mask"), -1)
        other = given.get("attention_mask")
        found["attention_mask"] = own if other is None else ops.logical_and(own, ops.cast(other, "bool"))
    return found
