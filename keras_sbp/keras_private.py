"""Everything private in Keras that this package relies on, and what each name stands for.

tests/test_keras_private.py checks these functions one by one, so that it says which broke when Keras moves.
"""

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any, Protocol

import keras
from keras import tree
from keras.src.backend.common import global_state

from keras_sbp.lazy import tf


class Node(Protocol):
    """One call of an operation in a model's graph. A layer called twice has two nodes."""

    operation: keras.Operation
    input_tensors: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def functional(model: keras.Model) -> keras.Model | None:
    """The graph of a functional or built Sequential model; None if the model has none."""
    found = getattr(model, "_functional", model)  # what a Sequential builds from its layers
    return found if hasattr(found, "_nodes_by_depth") else None


def nodes(graph: keras.Model) -> list[Node]:
    """The nodes of what `functional` returned, each after those whose outputs it takes."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def flat_inputs(graph: keras.Model, inputs: Any) -> list[keras.KerasTensor]:
    """The inputs of a nested model's call (a tensor, list or dict) in the order of its `inputs`."""
    return [_unconverted(tensor) for tensor in graph._standardize_inputs(inputs)]


def given_inputs(graph: keras.Model, inputs: Any) -> list[Any]:
    """Arrays as a model takes them, in the order of its `inputs` and of their rank."""
    return graph._standardize_inputs(inputs)


def _unconverted(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What was converted to a tensor, if it is one of that dtype already."""
    made = producer(tensor)
    if is_keras_op(made.operation, {"ConvertToTensor"}) and made.input_tensors[0].dtype == tensor.dtype:
        return made.input_tensors[0]
    return tensor


def arguments(node: Node, tensors: list[keras.KerasTensor] | None = None) -> tuple[tuple, dict[str, Any]]:
    """(args, kwargs) of a recorded call; with `tensors` in place of `node.input_tensors`, if given."""
    new = node.input_tensors if tensors is None else tensors
    return node.arguments.fill_in({id(old): tensor for old, tensor in zip(node.input_tensors, new)})


def training(node: Node) -> dict[str, bool]:
    """{"training": ...} if a recorded call says that."""
    said = arguments(node)[1].get("training")
    return {} if said is None else {"training": said}


def call(node: Node, operation: keras.Operation, tensors: list, **changes: Any) -> list:
    """Repeat a recorded call with another operation and other tensors, and return the list of outputs.

    Args:
        node: the call.
        operation: called in place of `node.operation`.
        tensors: in place of `node.input_tensors`; symbolic, or arrays.
        changes: to the keyword arguments.
    """
    args, kwargs = arguments(node, tensors)
    return tree.flatten(traced_call(operation, args, kwargs | changes))


def traced_call(operation: keras.Operation, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call an operation; if it is an EinsumDense, or a layer of somebody's own class, with output shapes as Keras finds
    them by tracing its `call`.

    What EinsumDense says leaves out sizes that its input has; a class may inherit what it says of other arguments.
    """
    own = isinstance(operation, keras.Layer) and not type(operation).__module__.startswith(("keras.", "keras_sbp."))
    if not (own or type(operation) is keras.layers.EinsumDense) or "compute_output_spec" in vars(operation):
        return _dense(operation(*args, **kwargs), (args, kwargs))
    vars(operation)["compute_output_spec"] = functools.partial(keras.Operation.compute_output_spec, operation)
    try:
        return _dense(operation(*args, **kwargs), (args, kwargs))
    finally:
        del vars(operation)["compute_output_spec"]


def _dense(outputs: Any, given: Any) -> Any:
    """The outputs of a call, sparse only if something given is: Keras takes 2 * x for sparse, and a layer that it
    traces on a sparse tensor has outputs of unknown size."""
    if not any(getattr(x, "sparse", False) for x in tree.flatten(given)):
        for output in tree.flatten(outputs):
            if isinstance(output, keras.KerasTensor):
                output._sparse = False
    return outputs


def weights_in(node: Node) -> bool:
    """Whether a weight is among the arguments of a recorded call, as in `keras.ops.matmul(x, layer.kernel)`."""
    return any(isinstance(value, keras.Variable) for value in tree.flatten(arguments(node)))


def calls(operation: keras.Operation) -> list[Node]:
    """All calls of an operation, in any model."""
    return operation._inbound_nodes


def producer(tensor: keras.KerasTensor) -> Node:
    """The call that a tensor is an output of."""
    operation, index, _ = tensor._keras_history
    return calls(operation)[index]


def loss_settings(loss: keras.losses.Loss) -> dict[str, Any]:
    """The arguments of a loss of Keras's but for its name; the configs of some, such as Huber's, leave out one."""
    config = {name: value for name, value in loss.get_config().items() if name != "name"}
    return config | getattr(loss, "_fn_kwargs", {})


def copied_loss(loss: keras.losses.Loss) -> keras.losses.Loss:
    """A copy of a loss with all its arguments."""
    new = object.__new__(type(loss))  # copy.copy makes it of its config
    new.__dict__.update(vars(loss))
    return new


def renamed(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of one of keras.ops under a name, not called yet."""
    other = copy.copy(operation)
    other.name, other._inbound_nodes, other._outbound_nodes = name, [], []
    return other


def mask_of(tensor: keras.KerasTensor) -> keras.KerasTensor | None:
    """The mask that comes with a tensor, like that of an Embedding with mask_zero=True."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: keras.KerasTensor, mask: keras.KerasTensor) -> None:
    """Let a mask come with a tensor: layers that are called on the tensor take it."""
    tensor._keras_mask = mask


def is_from_keras(thing: type | Any) -> bool:
    """Whether a class or a function is defined in Keras."""
    return thing.__module__.startswith("keras.")


def is_keras_op(operation: keras.Operation, names: set[str] | frozenset[str]) -> bool:
    """Whether an operation is Keras's class of one of these names: those behind keras.ops are not public."""
    return type(operation).__name__ in names and is_from_keras(type(operation))


def inner_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers in a layer, and those in them."""
    return list(layer._flatten_layers(include_self=False))


def own_losses(layer: keras.Layer) -> list:
    """The losses that calls of a layer have added."""
    return layer._losses


def build_shapes(layer: keras.Layer) -> Any:
    """The shape of the one argument that a layer or model was built for, in the argument's structure; None if there
    is none or several."""
    shapes = list((getattr(layer, "_build_shapes_dict", None) or {}).values())
    return shapes[0] if layer.built and len(shapes) == 1 else None


def lookup_table(layer: keras.Layer) -> keras.Layer:
    """The table of a TextVectorization, StringLookup or IntegerLookup."""
    return getattr(layer, "_lookup_layer", layer)


def attention_axes(layer: keras.layers.MultiHeadAttention) -> tuple[int, ...]:
    """The axes along which a built attention layer attends."""
    return layer._attention_axes


def lambda_output_shape(layer: keras.layers.Lambda) -> Any:
    """The output shape that a Lambda was given, a tuple or a function; its config holds neither as it is."""
    return layer._output_shape


def forward_pass() -> Any | None:
    """An object that stands for the forward pass in progress on this thread; None if there is none.

    A forward pass is the call of an outermost layer, usually a model, with the calls of all layers in it. Each tower
    has its own, in a thread of its own. On JAX, `fit` calls no outermost layer, but opens a stateless scope.
    """
    scope = global_state.get_global_attribute("stateless_scope")
    return global_state.get_global_attribute("current_call_ctx") if scope is None else scope


def graph_layers(forward_pass: Any) -> list[keras.Layer]:
    """The layers in the graph of the outermost model of a `forward_pass()`, and in the graphs nested in it.

    Each is called in the pass, and between them runs no code but Keras's own, which might stop the recording of
    gradients. So none is in a layer that is rematerialized, or in a model with a `call` of its own.
    """
    outermost = getattr(forward_pass, "entry_layer", None)
    return list(dict.fromkeys(_graph_layers(outermost))) if outermost else []


def _graph_layers(layer):
    if layer._remat_mode is not None:
        return []
    if not (isinstance(layer, keras.Model) and functional(layer) and is_from_keras(type(layer).call)):
        return [layer]
    return [inner for part in layer.layers for inner in _graph_layers(part)]


def trace() -> Any | None:
    """What stands for the graph or function that the backend is tracing, on PyTorch for whether it records gradients;
    None in TensorFlow's eager mode. Compare by ==."""
    if keras.backend.backend() == "tensorflow":
        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if keras.backend.backend() == "jax":
        from jax.extend import core

        return core.get_opaque_trace_state()
    import torch

    return torch.is_grad_enabled()


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """A context in which layers without a seed draw the same random numbers whenever it is entered, if their seed
    generators have the same states: on PyTorch, dropout draws from the global generator."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def no_memory() -> Iterator[None]:
    """A context in which models are built whose weights have a shape but no memory; they cannot be used."""
    if keras.backend.backend() == "tensorflow":
        with tf.Graph().as_default():
            yield
        return
    name = "uninitialized_variables"  # which Keras would initialize later
    before = global_state.get_global_attribute(name, [])
    global_state.set_global_attribute(name, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, before)


def adam_moments(optimizer: keras.optimizers.Adam, variable: keras.Variable) -> tuple[keras.Variable, keras.Variable]:
    """The first and second moment that a built Adam keeps of a variable's gradient."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def sgd_momentum(optimizer: keras.optimizers.SGD, variable: keras.Variable) -> keras.Variable:
    """The momentum that a built SGD keeps of a variable."""
    return optimizer.momentums[optimizer._get_variable_index(variable)]
