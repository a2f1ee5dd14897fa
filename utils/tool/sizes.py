"""Networks that read inputs of any size: they are counted and trained at the size of the examples."""

from typing import Any

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils.pruning import graph
from keras_sbp.utils.tool.examples import Arrays, Stream
from keras_sbp.utils.tool.refusal import Refused


def fixed(model: keras.Model, parts: list[Arrays | Stream]) -> keras.Model:
    """The model; if its inputs may have any size, a copy that reads the size of the examples.

    Without a size, MACs are known for one position only.

    Raises:
        Refused: the examples differ in size.
    """
    if not has_any_size(model):
        return model
    shapes = sorted(set().union(*(part.shapes for part in parts)))
    if len(shapes) > 1:
        one, other = (", ".join(map(str, each)) for each in shapes[:2])
        raise Refused(
            f"{model.name} reads any size, and there are examples of {one} and of {other}: pad, crop or resize them to "
            "one size, as MACs depend on it"
        )
    x, _ = next(iter(parts[0].batches()))
    try:
        return graph.clone(model, inputs=graph.new_inputs(model, _shapes(model, x)))
    except ValueError as error:
        raise Refused(str(error)) from None


def like(smaller: keras.Model, model: keras.Model, x: Any) -> keras.Model:
    """A smaller network that reads any size again, as the given one does; itself, if that cannot be done.

    Args:
        x: some examples.
    """
    twice = [
        np.zeros((1, *(2 * size if own is None else size for own, size in zip(tensor.shape[1:], shape[1:]))))
        for tensor, shape in zip(model.inputs, _shapes(model, x))
    ]
    try:
        found = graph.clone(smaller, inputs=graph.new_inputs(model))
        # A layer of somebody's own may have been written down for one size.
        found(keras.tree.pack_sequence_as(keras_private.functional(model).input, twice), training=False)
    except Exception:  # whatever a layer raises where the size is another
        return smaller
    return found


def has_any_size(model: keras.Model) -> bool:
    """Whether an input has an axis of any length, besides that of the examples."""
    return any(None in tensor.shape[1:] for tensor in model.inputs)


def _shapes(model: keras.Model, x: Any) -> list[tuple[int | None, ...]]:
    """Of the inputs, with the lengths of the examples where the model has none."""
    found = []
    for tensor, array in zip(model.inputs, keras_private.given_inputs(keras_private.functional(model), x)):
        lengths = (size if own is None else own for own, size in zip(tensor.shape[1:], array.shape[1:]))
        found.append((tensor.shape[0], *lengths))
    return found
