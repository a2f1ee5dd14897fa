"""A Keras model as nodes: an operation, the tensors that it reads and the tensors that it gives."""

import keras


def nodes(model):
    """The nodes of a model, each after those whose outputs it reads.

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
    return keras.tree.flatten(operation(*args, **kwargs))


def rebuilt(model, outputs):
    """A model from the inputs of another to new outputs, in the structure of the other's."""
    functional = _functional(model)
    outputs = keras.tree.pack_sequence_as(functional._outputs_struct, outputs)
    return keras.Model(functional._inputs_struct, outputs, name=model.name)


def _functional(model):
    functional = getattr(model, "_functional", model)
    if not hasattr(functional, "_nodes_by_depth"):
        raise ValueError(f"{model.name} is a subclass of keras.Model without a graph: give a functional or Sequential")
    return functional
