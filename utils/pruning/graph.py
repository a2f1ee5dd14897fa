"""A Keras model as nodes: an operation, the tensors that it reads and the tensors that it gives."""

import keras
from keras import tree


def nodes(model):
    """The nodes of a model without nested ones (`opened`), each after those whose outputs it reads.

    A node of Keras has `operation`, `input_tensors`, `outputs` and `arguments`. An operation that is in several places
    has a node for each.

    Raises:
        ValueError: the model is neither Sequential nor functional, so that there is no graph to walk.
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
    places = {id(old): new for old, new in zip(node.input_tensors, tensors)}
    args, kwargs = node.arguments.fill_in(places)
    return tree.flatten(operation(*args, **kwargs))


def rebuilt(model, outputs):
    """A model from the inputs of another to new outputs, in the structure of the other's."""
    functional = _functional(model)
    outputs = tree.pack_sequence_as(functional._outputs_struct, outputs)
    return keras.Model(functional._inputs_struct, outputs, name=model.name)


def copied(model, instead=lambda node, tensors: None, after=lambda old, new: new):
    """A copy of a model, weights and all, with changes.

    Args:
        model: without models in it.
        instead: from a node and its inputs in the copy to its outputs there; None: as the node has them.
        after: from a node's output and that in the copy to what its readers get there.
    """
    built, layers = {id(tensor): tensor for tensor in model.inputs}, {}
    for node in nodes(model):
        if is_input(node):
            continue
        op, tensors = node.operation, [built[id(tensor)] for tensor in node.input_tensors]
        outputs = instead(node, tensors)
        if outputs is None:
            layer = op
            if isinstance(op, keras.Layer):
                layer = layers.setdefault(id(op), type(op).from_config(op.get_config()))
            outputs = call(node, layer, tensors)
            if isinstance(op, keras.Layer):
                layer.set_weights(op.get_weights())
        built |= {id(old): after(old, new) for old, new in zip(node.outputs, outputs)}
    return rebuilt(model, [built[id(tensor)] for tensor in model.outputs])


def opened(model):
    """The model itself, or if it has models in it, a copy with their layers in their place, weights and all.

    A layer whose name another has by then is called after its model, too.
    """
    if not any(_is_model(node.operation) for node in nodes(model)):
        return model
    copies, names = {}, set()

    def copied(operation, within):
        if not isinstance(operation, keras.Layer):
            return operation
        if id(operation) not in copies:
            name = operation.name if operation.name not in names else f"{within}_{operation.name}"
            names.add(name)
            copies[id(operation)] = type(operation).from_config({**operation.get_config(), "name": name})
        return copies[id(operation)]

    def run(inner, inputs):
        tensors = dict(zip(map(id, _functional(inner).inputs), inputs))
        for node in nodes(inner):
            if not is_input(node):
                given = [tensors[id(tensor)] for tensor in node.input_tensors]
                if _is_model(node.operation):
                    outputs = run(node.operation, given)
                else:
                    layer = copied(node.operation, inner.name)
                    outputs = call(node, layer, given)
                    if isinstance(layer, keras.Layer):
                        layer.set_weights(node.operation.get_weights())
                tensors |= zip(map(id, node.outputs), outputs)
        return [tensors[id(tensor)] for tensor in _functional(inner).outputs]

    return rebuilt(model, run(model, model.inputs))


def _is_model(operation):
    return (
        isinstance(operation, keras.Model)
        and hasattr(operation, "_nodes_by_depth")
        or hasattr(operation, "_functional")
    )


def _functional(model):
    functional = getattr(model, "_functional", model)
    if not hasattr(functional, "_nodes_by_depth"):
        raise ValueError(f"{model.name} is a subclass of keras.Model without a graph: give a functional or Sequential")
    return functional
