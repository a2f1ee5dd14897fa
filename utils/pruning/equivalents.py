"""Stock Keras layers that may compute what a layer of somebody's own class computes: the class it derives from,
normalizations, and dropout of whole examples. Which of them does is found by trying."""

import inspect
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.recording import own_weights
from keras_sbp.utils.pruning.replaying import Copy
from keras_sbp.utils.pruning.rules.cloning import clone_layer


class Candidate(NamedTuple):
    """A model of one stock layer in place of another layer; its variables that are copies of the layer's; and whether
    it draws other random numbers."""

    model: keras.Model
    copies: list[Copy]
    draws_otherwise: bool = False


def candidates(node: Node) -> Iterator[Candidate]:
    """Models with the inputs of a node and, after them, zeros for each example (see `recording.record`)."""
    layer = node.operation
    kind = next(kind for kind in type(layer).__mro__ if keras_private.is_from_keras(kind))
    if not issubclass(kind, keras.Model) and kind is not keras.Layer:
        yield from _base(node, kind)
    elif not keras_private.inner_layers(layer) and len(node.input_tensors) == 1 and len(node.outputs) == 1:
        weights, shape = list(own_weights(layer).values()), tuple(node.input_tensors[0].shape)
        if node.outputs[0].shape == shape and len(shape) > 1 and "float" in node.input_tensors[0].dtype:
            settings = [value for value in vars(layer).values() if isinstance(value, float)]
            if weights and len(weights) == len(layer.weights) and all(w.shape == shape[-1:] for w in weights):
                yield from _normalizations(node, weights, settings)
            elif not weights:
                rates = [value for value in settings if 0 < value < 1]
                yield from (_of_one_layer(node, _stochastic_depth(layer, rate, len(shape)), True) for rate in rates)


def _base(node: Node, kind: type[keras.Layer]) -> Iterator[Candidate]:
    """A layer of the class that the layer's class derives from."""
    layer, new = node.operation, clone_layer(node.operation, kind)
    inputs, zeros = _inputs(node)
    args, kwargs = keras_private.arguments(node, inputs)
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    given = {name: value for name, value in given.items() if value is not None and name != "training"}
    model = keras.Model([*inputs, zeros], new(**given), name=layer.name)
    if [variable.shape for variable in new.variables] == [variable.shape for variable in layer.variables]:
        pairs = zip(new.variables, layer.variables)
        yield Candidate(model, [Copy(variable, lambda source=source: np.asarray(source)) for variable, source in pairs])


def _normalizations(node: Node, weights: list[keras.Variable], epsilons: list[float]) -> Iterator[Candidate]:
    layer, common = node.operation, {"name": node.operation.name, "dtype": node.operation.dtype_policy}
    for epsilon, order, offset in itertools.product(epsilons, itertools.permutations(weights), (0, 1)):
        kinds = [layers.LayerNormalization(epsilon=epsilon, center=len(weights) == 2, **common)]
        kinds += [layers.RMSNormalization(epsilon=epsilon, **common)] * (len(weights) == 1)
        for new in kinds if len(weights) < 3 else []:
            found = _of_one_layer(node, new)
            for number, (variable, source) in enumerate(zip(new.weights, order)):
                added = offset * (number == 0)  # some scale by 1 + w
                value = lambda source=source, added=added: np.asarray(source) + added  # noqa: E731
                variable.trainable = source.trainable and layer.trainable
                found.copies.append(Copy(variable, value))
            yield found


def _stochastic_depth(layer: keras.Layer, rate: float, rank: int) -> keras.Layer:
    shape = (None, *(1,) * (rank - 1))
    return layers.Dropout(rate, noise_shape=shape, name=layer.name, dtype=layer.dtype_policy)


def _of_one_layer(node: Node, new: keras.Layer, draws_otherwise: bool = False) -> Candidate:
    inputs, zeros = _inputs(node)
    return Candidate(keras.Model([*inputs, zeros], new(*inputs), name=node.operation.name), [], draws_otherwise)


def _inputs(node: Node) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in node.input_tensors]
    return inputs, keras.Input((1,), dtype="int32")
