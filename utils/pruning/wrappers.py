"""Layers around other layers, written as what is in them where that computes the same."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules import clone_layer, set_weights
from keras_sbp.utils.pruning.rules.rule import is_training

Tensors = dict[int, keras.KerasTensor]  # {id of a tensor of the old graph: that of the new one}
Form = Callable[[Tensors], list[keras.KerasTensor]]  # to the outputs of a call in the new graph
Copies = dict[int, list[keras.Layer]]  # {id of a layer: what stands for it at all its calls}

# Layers that depend on other steps or on a mask, or train otherwise on all steps at once.
DEPENDENT = (layers.BatchNormalization, layers.SpectralNormalization, layers.RNN, layers.Bidirectional)


def form(node: Node, read: set[int], copies: Copies) -> Form | None:
    """What stands for a call, if it is one of a layer around others and all calls of that layer have such a form.

    Args:
        read: ids of the tensors that something reads.
        copies: what stands for each layer so far; completed when the form is used.
    """
    made = _maker(node)
    if made is None or any(made(call, read, copies) is None for call in keras_private.calls(node.operation)):
        return None
    return made(node, read, copies)


def _maker(node: Node) -> Callable[[Node, set[int], Copies], Form | None] | None:
    """What makes the form of a call of a layer of this kind, or says with None that the call has none."""
    op, kind = node.operation, type(node.operation)
    if kind is layers.TimeDistributed:
        return _time_distributed
    if kind is layers.SpectralNormalization:
        return _spectral
    if kind is layers.Bidirectional:
        return _directions
    if kind is layers.RNN and type(op.cell) is layers.StackedRNNCells:
        return _stacked
    if kind in (layers.LSTM, layers.GRU, layers.SimpleRNN) and len(node.outputs) > 1:
        return _without_states
    return None


def _time_distributed(node: Node, read: set[int], copies: Copies) -> Form | None:
    """The layer in it, called on all steps at once, if it treats them alike."""
    wrapper, tensor = node.operation, node.input_tensors[0]
    inner, steps, step = wrapper.layer, tensor.shape[1], tensor.shape[2:]
    parts, is_dense = [inner, *keras_private.inner_layers(inner)], type(inner) is layers.Dense
    if any(isinstance(part, DEPENDENT) or not keras_private.is_from_keras(type(part)) for part in parts):
        return None
    if not is_dense and (len(node.input_tensors) > 1 or None in (steps, *step)):  # a mask, or steps of any number
        return None
    settings = keras_private.training(node)

    def form(built: Tensors) -> list[keras.KerasTensor]:
        x = built[id(tensor)]
        if is_dense:
            return [_copied(inner, wrapper, copies)(x)]
        layer = inner if isinstance(inner, keras.Model) else _copied(inner, wrapper, copies)
        y = layer(ops.reshape(x, (-1, *step)), **settings)
        return [ops.reshape(y, (-1, steps, *y.shape[1:]))]

    return form


def _spectral(node: Node, read: set[int], copies: Copies) -> Form | None:
    """The layer in it with its kernel as it is, which is what it computes at test time."""
    if is_training(node) or not keras_private.is_from_keras(type(node.operation.layer)):
        return None

    def form(built: Tensors) -> list[keras.KerasTensor]:
        return [_copied(node.operation.layer, node.operation, copies)(built[id(node.input_tensors[0])])]

    return form


def _stacked(node: Node, read: set[int], copies: Copies) -> Form | None:
    """A recurrent layer for each of its cells."""
    op, cells, given = node.operation, node.operation.cell.cells, _given(node)
    has_states = op.stateful or op.return_state or given.get("initial_state") is not None
    if has_states or op.zero_output_for_mask or (given.get("mask") is not None and op.go_backwards):
        return None

    def made() -> list[keras.Layer]:
        last = len(cells) - 1
        return [
            layers.RNN(
                clone_layer(cell),
                return_sequences=number < last or op.return_sequences,
                go_backwards=op.go_backwards and number == 0,
                unroll=op.unroll,
                dtype=op.dtype_policy,
                name=op.name if number == last else f"{op.name}_{number}",
            )
            for number, cell in enumerate(cells)
        ]

    def form(built: Tensors) -> list[keras.KerasTensor]:
        x, *mask = (built[id(tensor)] for tensor in node.input_tensors)
        if id(op) not in copies:
            copies[id(op)] = made()
        for layer, cell in zip(copies[id(op)], cells):
            (x,) = keras_private.call(node, layer, [x, *mask])
            set_weights(layer, cell.get_weights())
        return [x]

    return form


def _without_states(node: Node, read: set[int], copies: Copies) -> Form | None:
    """The layer without its states: h is the last output, unless it is that of a padded step; c must not be read."""
    op, (_, h, *cell_states), given = node.operation, node.outputs, _given(node)
    if op.stateful or given.get("initial_state") is not None or any(id(state) in read for state in cell_states):
        return None
    if given.get("mask") is not None and op.return_sequences and id(h) in read:
        return None

    def form(built: Tensors) -> list[keras.KerasTensor]:
        layer = copies.setdefault(id(op), [clone_layer(op, return_state=False)])[0]
        (y,) = keras_private.call(node, layer, [built[id(tensor)] for tensor in node.input_tensors])
        set_weights(layer, op.get_weights())
        return [y, y[:, -1] if op.return_sequences else y]

    return form


def _directions(node: Node, read: set[int], copies: Copies) -> Form | None:
    """Both layers of Bidirectional one by one, where it takes or returns their states."""
    op = node.operation
    has_states = op.return_state or _given(node).get("initial_state") is not None
    if op.stateful or not has_states or op.merge_mode not in ("concat", "sum"):
        return None
    both = {"forward": op.forward_layer, "backward": op.backward_layer}

    def form(built: Tensors) -> list[keras.KerasTensor]:
        given = _given(node, [built[id(tensor)] for tensor in node.input_tensors])
        x, states = given.pop("sequences"), given.pop("initial_state", None) or ()
        if id(op) not in copies:
            copies[id(op)] = [clone_layer(own, name=f"{op.name}_{name}") for name, own in both.items()]
        outputs, after = [], []
        for number, (layer, own) in enumerate(zip(copies[id(op)], both.values())):
            half = states[number * len(states) // 2 : (number + 1) * len(states) // 2]
            y, *last = tree.flatten(layer(x, **given, **({"initial_state": half} if states else {})))
            set_weights(layer, own.get_weights())
            outputs.append(ops.flip(y, axis=1) if number and op.return_sequences else y)
            after += last
        merged = ops.concatenate(outputs, axis=-1) if op.merge_mode == "concat" else ops.add(*outputs)
        if (mask := keras_private.mask_of(node.outputs[0])) is not None:
            keras_private.set_mask(merged, built.get(id(mask), keras_private.mask_of(outputs[0])))
        return [merged, *after]

    return form


def _given(node: Node, tensors: list[keras.KerasTensor] | None = None) -> dict[str, Any]:
    """The arguments of a call by their names; with `tensors` in place of its own."""
    args, kwargs = keras_private.arguments(node, tensors)
    return {**inspect.signature(node.operation.call).bind(*args, **kwargs).arguments}


def _copied(inner: keras.Layer, wrapper: keras.Layer, copies: Copies) -> Callable:
    """A copy of the layer in another, under the other's name."""
    (layer,) = copies.setdefault(id(wrapper), [clone_layer(inner, name=wrapper.name)])

    def call(x: keras.KerasTensor, **settings: bool) -> keras.KerasTensor:
        y = layer(x, **settings)
        set_weights(layer, inner.get_weights())
        return y

    return call
