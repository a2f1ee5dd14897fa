"""Calls in a model's graph written as other calls that compute the same, and that the pruning rules know."""

import keras
import numpy as np
from keras import layers, ops

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning import wrappers
from keras_sbp.utils.pruning.rules import masks
from keras_sbp.utils.pruning.rules.rule import axis_order
from keras_sbp.utils.pruning.wrappers import Form, Tensors


def outputs(nodes: list[Node], inputs: list[keras.KerasTensor], old: list[keras.KerasTensor]) -> list | None:
    """The outputs of a graph whose calls are written in the form that the rules know; None if all are.

    Args:
        nodes: of the graph, each after those whose outputs it takes.
        inputs: of the graph.
        old: its outputs.
    """
    copies: wrappers.Copies = {}
    read = {id(tensor) for node in nodes for tensor in node.input_tensors} | set(map(id, old))
    forms = {id(node): _form(node, read, copies) for node in nodes}
    if not any(forms.values()):
        return None
    built = {id(tensor): tensor for tensor in inputs}
    for node in nodes:
        if form := forms[id(node)]:
            new = form(built)
        elif isinstance(node.operation, layers.InputLayer):
            continue
        else:
            tensors = [built[id(tensor)] for tensor in node.input_tensors]
            # A form may consist of operations that do not pass on masks when the model runs.
            new = keras_private.call(node, node.operation, tensors, **masks.implicit(node, tensors))
        built |= {id(tensor): other for tensor, other in zip(node.outputs, new)}
    return [built[id(tensor)] for tensor in old]


def _form(node: Node, read: set[int], copies: wrappers.Copies) -> Form | None:
    if keras_private.is_keras_op(node.operation, {"Glu"}):
        return _glu(node)
    return wrappers.form(node, read, copies) or _new_axes(node) or _chosen_number(node) or _rearranged(node)


def _glu(node: Node) -> Form | None:
    (tensor,), axis = node.input_tensors, node.operation.axis

    def form(built: Tensors) -> list[keras.KerasTensor]:
        units, gates = ops.split(built[id(tensor)], 2, axis=axis)
        return [units * ops.sigmoid(gates)]

    return form


def _new_axes(node: Node) -> Form | None:
    """An index with None in it, as in x[:, None]: one without, and new axes."""
    if not keras_private.is_keras_op(node.operation, {"GetItem"}) or len(node.input_tensors) != 1:
        return None
    (tensor,), (_, key) = node.input_tensors, _values(node)
    parts = list(key) if isinstance(key, (list, tuple)) else [key]
    others = [part for part in parts if part is not None]
    if not all(part is Ellipsis or isinstance(part, (int, slice)) for part in others):
        return None
    within_ellipsis = len(tensor.shape) - sum(part is not Ellipsis for part in others)
    new, axis = [], 0
    for part in parts:
        new += [axis] if part is None else []
        axis += within_ellipsis if part is Ellipsis else 0 if isinstance(part, int) else 1
    if not new or new[0] == 0:
        return None

    def form(built: Tensors) -> list[keras.KerasTensor]:
        x = built[id(tensor)]
        if any(part is not Ellipsis and part != slice(None) for part in others):
            x = x[tuple(others)]
        for axis in new:
            x = ops.expand_dims(x, axis)
        return [x]

    return form


def _chosen_number(node: Node) -> Form | None:
    """A choice between a tensor and a number, as in where(mask, x, 0): between two tensors."""
    if not keras_private.is_keras_op(node.operation, {"Where"}) or len(node.input_tensors) != 2:
        return None
    if len(given := _values(node)) != 3 or not any(type(value) in (int, float) for value in given):
        return None

    def form(built: Tensors) -> list[keras.KerasTensor]:
        tensors = [built[id(tensor)] for tensor in node.input_tensors]
        zeros = ops.zeros_like(tensors[1])
        values = (zeros + value if type(value) in (int, float) else value for value in _values(node, tensors))
        return [ops.where(*values)]

    return form


def _values(node: Node, tensors: list[keras.KerasTensor] | None = None) -> list:
    args, kwargs = keras_private.arguments(node, tensors)
    return [*args, *kwargs.values()]


def _rearranged(node: Node) -> Form | None:
    """A reshape of a transpose of a reshape that moves parts of the units, as in a channel shuffle or a pixel shuffle:
    the units are taken in another order, and then moved with the last axis where it is.
    """
    if not _reshapes(node):
        return None
    turn = keras_private.producer(node.input_tensors[0])
    if not (order := [axis - 1 for axis in axis_order(turn)[1:]]):
        return None
    first = keras_private.producer(turn.input_tensors[0])
    source = first.input_tensors[0] if _reshapes(first) else turn.input_tensors[0]
    before, middle = source.shape[1:], turn.input_tensors[0].shape[1:]
    after = node.outputs[0].shape[1:]
    own = _last_axes(middle, before[-1])
    joined = _last_axes([middle[axis] for axis in order], after[-1])
    if own is None or joined is None:
        return None
    first_own = len(middle) - own
    left, right = order[: len(order) - joined], order[len(order) - joined :]
    moved = [axis for axis in left if axis >= first_own]
    ends = [axis for axis in right if axis >= first_own]
    if not ends or (order[-1] == len(middle) - 1 and len(ends) == 1 and moved == sorted(moved)):
        return None  # units become positions; or the last axis stays where it is
    sizes = middle[first_own:]
    taken = np.arange(before[-1]).reshape(sizes).transpose([axis - first_own for axis in sorted(moved) + ends])
    count = int(np.prod([middle[axis] for axis in ends]))
    # The axes in between: the positions, the units that become positions, and the other units.
    axes = [*range(first_own), *sorted(moved)]
    turned = [*left, *(axis for axis in right if axis < first_own)]
    joined_axes = [axis for axis in right if axis < first_own] + ends
    last = np.arange(after[-1]).reshape([middle[axis] for axis in joined_axes])
    last = last.transpose([joined_axes.index(axis) for axis in right])

    def form(built: Tensors) -> list[keras.KerasTensor]:
        x = _taken(built[id(source)], taken)
        x = _reshaped(x, (*(middle[axis] for axis in axes), count))
        if turned != axes:
            x = ops.transpose(x, (0, *(axes.index(axis) + 1 for axis in turned), len(axes) + 1))
        return [_taken(_reshaped(x, after), last)]

    return form


def _taken(x: keras.KerasTensor, indices: np.ndarray) -> keras.KerasTensor:
    indices = indices.ravel()
    return x if (np.diff(indices) == 1).all() else ops.take(x, indices.tolist(), axis=-1)


def _reshaped(x: keras.KerasTensor, shape: tuple[int, ...]) -> keras.KerasTensor:
    return x if x.shape[1:] == shape else ops.reshape(x, (-1, *shape))


def _reshapes(node: Node) -> bool:
    """Whether a call is a reshape of each example, of known size."""
    if not keras_private.is_keras_op(node.operation, {"Flatten", "Reshape"}) or len(node.input_tensors) != 1:
        return False
    before, after = node.input_tensors[0].shape, node.outputs[0].shape
    known = before[0] == after[0] and None not in (*before[1:], *after[1:])
    plain = getattr(node.operation, "data_format", None) != "channels_first"
    return known and plain and len(before) > 1 and np.prod(before[1:]) == np.prod(after[1:])


def _last_axes(shape: list[int], count: int) -> int | None:
    """How many of the last axes have this many elements."""
    return next((n for n in range(1, len(shape) + 1) if np.prod(shape[-n:]) == count), None)
