"""A Keras model as nodes: an operation, the tensors that it reads and the tensors that it gives."""

import copy
import inspect

import keras
import numpy as np
from keras import tree


def nodes(model):
    """The nodes of a model without nested ones (`flatten_nested`), each after those whose outputs it reads.

    A node of Keras has `operation`, `input_tensors`, `outputs` and `arguments`. An operation that is in several places
    has a node for each.

    Raises:
        ValueError: there is no graph to walk: the model is neither Sequential nor functional, or not built.
    """
    by_depth = _functional(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def is_input(node):
    return isinstance(node.operation, keras.layers.InputLayer)


def call(node, operation, tensors):
    """Call an operation as a node of the graph does, on other tensors.

    Args:
        tensors: in the place of `node.input_tensors`.
    Returns:
        A list of the outputs.
    """
    args, kwargs = _arguments(node, tensors)
    return tree.flatten(operation(*args, **kwargs))


def rebuilt(model, outputs):
    """A model from the inputs of another to new outputs, in the structure of the other's."""
    functional = _functional(model)

    def of(outputs):
        return keras.Model(functional.input, tree.pack_sequence_as(functional.output, outputs), name=model.name)

    # `compile` and `fit` may call an output by its layer's name, if that has one output only.
    taken = {operation.name for operation in of(outputs).operations}
    wanted = [tensor._keras_history.operation.name for tensor in functional.outputs]
    taken |= {name for name in wanted if wanted.count(name) > 1}
    return of([tensor if name in taken else _named(tensor, name) for tensor, name in zip(outputs, wanted)])


def _named(tensor, name):
    return keras.layers.Identity(name=name, dtype=tensor.dtype)(tensor)


def clone_layer(layer, kind=None, **changes):
    """A layer like another, without its weights yet.

    Args:
        kind: its class; None: the other's.
        changes: to the settings that it has.
    Raises:
        ValueError: the layer's config does not make one.
    """
    kind = kind or type(layer)
    try:
        config = kind.get_config(layer)
        config |= {name: value for name, value in changes.items() if name in config} | _as_they_are(layer, config)
        if isinstance(layer, keras.layers.Lambda):
            own = {name: config[name] for name in ("name", "dtype", "trainable")}
            return kind(layer.function, layer._output_shape, layer.mask, layer.arguments, **own)
        return kind.from_config(config)
    except Exception as error:  # whatever a layer of somebody's raises
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be made from its config: {error}; give it a get_config that "
            "its __init__ takes"
        ) from error


def _as_they_are(layer, config):
    """Settings that a layer's config does not hold, or not for another size."""
    found = {}
    for name in config:
        value = getattr(layer, name, None)
        if inspect.isfunction(value) and not value.__module__.startswith("keras."):
            # A function of somebody's, which Keras may not know by its name.
            found[name] = value
        elif isinstance(value, keras.initializers.Initializer) and np.ndim(getattr(value, "value", 0)):
            # The initializer Constant with an array; the weights are set in any case.
            found[name] = "zeros"
    if config.get("vocabulary", "none") is None and layer.vocabulary_size():
        words = layer.get_vocabulary(include_special_tokens=False)
        found["vocabulary"] = [word.item() if isinstance(word, np.generic) else word for word in words]
        if config["output_mode"] == "tf_idf":
            first, lookup = layer.vocabulary_size() - len(words), getattr(layer, "_lookup_layer", layer)
            found["idf_weights"] = np.asarray(lookup.idf_weights)[first : first + len(words)].tolist()
    return found


def take_weights(layer, weights, op):
    """Give a new layer weights, in the order of those of `op`, which it is like."""
    layer.set_weights(weights)
    if isinstance(op, keras.layers.Normalization):
        layer.finalize_state()  # what it computes with is no weight


def clone(model, instead=lambda node, tensors: None, after=lambda old, new: new):
    """A copy of a model, weights and all, with the layers of models in it in their place, and with changes.

    A layer of a model in it whose name another has is called after its model, too.

    Args:
        instead: from a node and its inputs in the copy to its outputs there; None: as the node has them.
        after: from a node's output and that in the copy to what its readers get there.
    Raises:
        ValueError: a layer's config does not make a layer.
    """
    operations, names, own = {}, set(), {node.operation.name for node in nodes(model)}

    def as_copied(op, within):
        if id(op) not in operations:
            name = op.name
            while name in names or (within is not model and name in own):
                name = f"{within.name}_{name}"
            names.add(name)
            operations[id(op)] = clone_layer(op, name=name) if isinstance(op, keras.Layer) else _called(op, name)
        return operations[id(op)]

    def run(inner, inputs):
        built = {id(tensor): new for tensor, new in zip(_functional(inner).inputs, inputs)}
        for node in nodes(inner):
            if is_input(node):
                continue
            op, tensors = node.operation, [built[id(tensor)] for tensor in node.input_tensors]
            outputs = instead(node, tensors)
            if outputs is None and _is_model(op):
                args, kwargs = _arguments(node, tensors)
                outputs = run(op, _functional(op)._standardize_inputs(args[0] if args else kwargs["inputs"]))
            elif outputs is None:
                new = as_copied(op, inner)
                outputs = call(node, new, tensors)
                if isinstance(op, keras.Layer):
                    take_weights(new, op.get_weights(), op)
            built |= {id(old): after(old, new) for old, new in zip(node.outputs, outputs)}
        return [built[id(tensor)] for tensor in _functional(inner).outputs]

    return rebuilt(model, run(model, model.inputs))


def _called(operation, name):
    """One of keras.ops under another name."""
    if name == operation.name:
        return operation
    other = copy.copy(operation)
    other.name, other._inbound_nodes, other._outbound_nodes = name, [], []
    return other


def flatten_nested(model):
    """The model itself, or if it has models in it, its copy without.

    Raises:
        ValueError: it is no functional or Sequential network, it is quantised, or a layer cannot be copied.
    """
    if any(_is_model(node.operation) for node in nodes(model)):
        model = clone(model)
    operations = [node.operation for node in nodes(model)]
    if quantised := {op.name for op in operations if getattr(op, "quantization_mode", None)}:
        raise ValueError(f"{', '.join(sorted(quantised))}: quantised already. Prune first, and quantise what is left")
    return model


def _arguments(node, tensors):
    places = {id(old): new for old, new in zip(node.input_tensors, tensors)}
    return node.arguments.fill_in(places)


def _is_model(operation):
    has_graph = hasattr(operation, "_nodes_by_depth") or hasattr(operation, "_functional")
    return isinstance(operation, keras.Model) and has_graph and not _has_own_call(operation)


def _has_own_call(model):
    """Whether it is of a class that does something else than its graph."""
    return not type(model).call.__module__.startswith("keras.")


def _functional(model):
    functional = getattr(model, "_functional", model)
    if not hasattr(functional, "_nodes_by_depth"):
        if isinstance(model, keras.Sequential):
            raise ValueError(f"{model.name} is not built: give its first layer an Input, or call it on something")
        raise ValueError(f"{model.name} is a subclass of keras.Model without a graph: give a functional or Sequential")
    if _has_own_call(model):
        raise ValueError(
            f"{model.name} has a call() of its own: give keras.Model(model.input, model.output) or the like"
        )
    return functional
