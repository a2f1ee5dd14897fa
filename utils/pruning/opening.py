"""Composite layers and subclassed models as graphs: their `call` is run on symbolic tensors, which records the layers
and operations in it.

A weight that the layer holds itself, like a class token, becomes the table of an Embedding. What is opened is compared
with the layer, at test time and in training with the same seeds, and used only if it computes the same.
"""

import weakref
from collections.abc import Callable

import keras
import numpy as np
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.barrier import PRODUCTS

# {layer: (what is in it, or None; why not, or "")} for the shapes of its last call
_OPENED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
TOLERANCE = 1e-5


def opened(node: Node) -> tuple[keras.Model | None, str]:
    """A model of the inputs of a node that computes what its layer does, of the layer's own layers; or None, and why
    there is none."""
    layer = node.operation
    if not is_composite(layer):
        return None, ""
    shapes = tuple(tensor.shape for tensor in node.input_tensors)
    if layer not in _OPENED or _OPENED[layer][0] != shapes:
        try:
            found = _open(node), ""
        except Exception as error:  # somebody's layer may raise anything
            found = None, f"cannot be opened: {' '.join(str(error).split())[:100]}"
        _OPENED[layer] = shapes, found
    return _OPENED[layer][1]


def is_composite(layer: keras.Operation) -> bool:
    """Whether a layer of somebody's own class has layers in it that are pruned one by one."""
    if not isinstance(layer, keras.Layer):
        return False
    own = keras_private.is_from_keras(type(layer)) or type(layer).__module__.startswith("keras_sbp.")
    return bool(keras_private.inner_layers(layer)) and not own


def functional(model: keras.Model) -> keras.Model:
    """The model itself, or if it is a subclass with a call of its own and has been built, what is in it.

    Raises:
        ValueError: it cannot be opened.
    """
    if keras_private.functional(model) is not None or isinstance(model, keras.Sequential):
        return model
    shapes = keras_private.build_shapes(model)
    if not shapes:
        raise ValueError(f"{model.name} is a subclass of keras.Model that is not built: call it on data once")
    inputs = tree.map_shape_structure(lambda shape: keras.Input(shape[1:]), shapes)
    try:
        outputs = model(inputs)
        whole = keras.Model(inputs, outputs, name=model.name)
        (node,) = [node for node in keras_private.nodes(whole) if node.operation is model]
        found, why = opened(node)
    except Exception as error:  # somebody's model may raise anything
        found, why = None, " ".join(str(error).split())[:100]
    if found is None:
        raise ValueError(
            f"{model.name} is a subclass of keras.Model whose call cannot be run on symbolic tensors ({why}): pass a "
            "functional or Sequential"
        )
    return found


def _open(node: Node) -> keras.Model:
    layer = node.operation
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in node.input_tensors]
    args, kwargs = keras_private.arguments(node, inputs)
    kwargs.pop("training", None)
    inside = object.__new__(type(layer))  # copy.copy would copy its layers, too
    inside.__dict__.update(vars(layer) | _weights_as_tensors(layer, inputs[0]))
    outputs = type(layer).call(inside, *args, **kwargs)
    model = _without_batch_sizes(keras.Model(inputs, outputs, name=layer.name))
    products = {type(operation).__name__ for operation in model.operations} & PRODUCTS
    if products and _own_weights(layer):
        raise ValueError(f"has weights of its own and products ({', '.join(sorted(products))})")
    owned = {id(weight) for weight in layer.weights}
    made = sum(1 for weight in model.weights if id(weight) not in owned)
    if len(model.weights) != len(layer.weights) or made != len(_own_weights(layer)):
        raise ValueError("its call does not use all of its weights as layers do")
    _compare(node, model)
    return model


def _own_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """{attribute: weight} of those that a layer holds itself."""
    inner = {id(weight) for each in keras_private.inner_layers(layer) for weight in each.weights}
    own = {id(weight) for weight in layer.weights} - inner
    return {name: value for name, value in vars(layer).items() if id(value) in own}


def _weights_as_tensors(layer: keras.Layer, example: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    """{attribute: tensor} for the weights that a layer holds itself, as outputs of Embeddings."""
    found = {}
    for name, weight in _own_weights(layer).items():
        *rows, units = weight.shape
        count = int(np.prod(rows))
        table = keras.layers.Embedding(count, units, name=f"{layer.name}_{name}")
        first = ops.take(ops.reshape(example, (-1,)), [0])
        index = ops.zeros_like(first, dtype="int32") + np.arange(count, dtype="int32")
        tensor = table(ops.reshape(index, (1, count)))
        table.set_weights([np.asarray(weight).reshape(count, units)])
        table.trainable = weight.trainable
        found[name] = tensor if tuple(weight.shape) == (1, count, units) else ops.reshape(tensor, weight.shape)
    return found


def _without_batch_sizes(model: keras.Model) -> keras.Model:
    """A model with sums with zeros in place of broadcasts to the number of examples, which symbolic tensors lack."""
    built = {id(tensor): tensor for tensor in model.inputs}
    reference = next(iter(model.inputs))
    for node in keras_private.nodes(model):
        if isinstance(node.operation, keras.layers.InputLayer):
            continue
        tensors = [built[id(tensor)] for tensor in node.input_tensors]
        if keras_private.is_keras_op(node.operation, {"BroadcastTo"}) and None in node.operation.shape[:1]:
            rank = len(node.operation.shape)
            zeros = ops.zeros_like(reference[(slice(None), *(slice(0, 1),) * (len(reference.shape) - 1))])
            outputs = [tensors[0] + ops.reshape(zeros, (-1, *(1,) * (rank - 1)))]
        else:
            outputs = keras_private.call(node, node.operation, tensors)
        built |= {id(old): new for old, new in zip(node.outputs, outputs)}
    return keras.Model(model.inputs, [built[id(tensor)] for tensor in model.outputs], name=model.name)


def _compare(node: Node, model: keras.Model) -> None:
    """Raise a ValueError if a model does not compute what a layer does, at test time and in training."""
    rng, layer = np.random.default_rng(0), node.operation
    given = []
    for tensor in node.input_tensors:
        shape = (2, *(size or 6 for size in tensor.shape[1:]))
        whole = "int" in tensor.dtype or tensor.dtype == "bool"
        given.append(rng.integers(2, size=shape).astype(tensor.dtype) if whole else rng.normal(size=shape))
    given = [ops.convert_to_tensor(x, tensor.dtype) for x, tensor in zip(given, node.input_tensors)]
    args, kwargs = keras_private.arguments(node, given)
    kwargs.pop("training", None)
    state = list(layer.non_trainable_variables)
    for training in (False, True):

        def of_layer(training: bool = training) -> list:
            return tree.flatten(layer(*args, **kwargs, training=training))

        def of_model(training: bool = training) -> list:
            return tree.flatten(model(given, training=training))

        expected, found = (_with_state(state, run) for run in (of_layer, of_model))
        for one, other in zip(expected, found, strict=True):
            scale = max(np.abs(one).max(initial=0), 1e-30)
            if one.shape != other.shape or not np.abs(one - other).max(initial=0) <= TOLERANCE * scale:
                raise ValueError(f"its layers compute something else {'in training' if training else 'at test time'}")


def _with_state(variables: list[keras.Variable], run: Callable[[], list]) -> list[np.ndarray]:
    """The outputs of a function, after which variables are as they were before."""
    before = [np.asarray(variable) for variable in variables]
    outputs = [ops.convert_to_numpy(output).astype(np.float32) for output in run()]
    for variable, value in zip(variables, before):
        variable.assign(value)
    return outputs
