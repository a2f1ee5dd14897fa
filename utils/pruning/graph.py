"""A Keras model as a graph of nodes, and copies of it with changes."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras
from keras import tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning import canonical, layout, opening, recording, rules
from keras_sbp.utils.pruning.rules import masks

# What a class overrides to train, evaluate or predict in a way of its own.
TRAINING_METHODS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "compile", "fit")
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
Tensors = list[keras.KerasTensor]


def nodes(model: keras.Model) -> list[Node]:
    """The nodes of a model without nested models (`flatten_nested`), each after those whose outputs it takes.

    Raises:
        ValueError: the model has no graph: it is neither Sequential nor functional, or not built.
    """
    return keras_private.nodes(_functional(model))


def new_inputs(model: keras.Model, shapes: list[tuple[int | None, ...]] | None = None) -> Tensors:
    """Inputs like those of a model. What is built on the model's own lives as long as the model does.

    Args:
        shapes: of the inputs, if not the model's.
    """
    found, own = [], _functional(model).inputs
    for tensor, shape in zip(own, shapes or [tensor.shape for tensor in own]):
        old = keras_private.producer(tensor).operation
        new = keras.layers.InputLayer.from_config({**old.get_config(), "batch_shape": tuple(shape)})
        # Exported networks are called by the tensor's name.
        new.dtype_policy, new.output.name = old.dtype_policy, tensor.name
        found.append(new.output)
    return found


def with_outputs(model: keras.Model, outputs: Tensors, inputs: Tensors | None = None) -> keras.Model:
    """A model from the inputs of another to new outputs, in the structure of the other's and under their names.

    It is of the other's class if that trains in a way of its own and can be built (`check_class`), else a keras.Model.

    Args:
        inputs: in place of the other's (`new_inputs`).
    """
    functional = _functional(model)
    build, _ = _constructor(model)

    def of(build: Callable, outputs: Tensors) -> keras.Model:
        own = functional.input if inputs is None else tree.pack_sequence_as(functional.input, inputs)
        return build(own, tree.pack_sequence_as(functional.output, outputs), name=model.name)

    # `compile` and `fit` may call an output by its layer's name, if that layer has one output only.
    taken = {operation.name for operation in of(keras.Model, outputs).operations}
    wanted = [keras_private.producer(tensor).operation.name for tensor in functional.outputs]
    taken |= {name for name in wanted if wanted.count(name) > 1}
    return of(build, [tensor if name in taken else _named(tensor, name) for tensor, name in zip(outputs, wanted)])


def _named(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Identity(name=name, dtype=tensor.dtype)(tensor)


def check_class(model: keras.Model) -> None:
    """Refuse a model that trains in a way of its own which a copy of it would lose.

    Raises:
        ValueError: its class overrides methods such as `train_step`, and cannot be built from inputs and outputs; or
            new layers would be channels_first.
    """
    if keras.config.image_data_format() == "channels_first":
        raise ValueError(
            "the units of a pruned network are the last axis: call keras.config.set_image_data_format('channels_last') "
            "first. Layers that are channels_first are read as such all the same"
        )
    own, name = ", ".join(_own_training(model)), type(model).__name__
    if own and keras_private.functional(model) is None and not isinstance(model, keras.Sequential):
        raise ValueError(
            f"{model.name} has its own call and its own {own}, which a smaller network would lose: build it from "
            f"inputs and outputs, {name}(inputs, outputs), with the {own} alone"
        )
    _, failure = _constructor(model)
    if failure:
        raise ValueError(
            f"{model.name} has its own {own}, and a smaller network of the class {name} cannot be built ({failure}): "
            f"give {name} an __init__(self, inputs, outputs, **kwargs) and a get_config, or pass "
            "keras.Model(model.input, model.output) to train as Keras does"
        )


def _constructor(model: keras.Model) -> tuple[Callable[..., keras.Model], str]:
    """What builds a model of the class of another from inputs, outputs and a name, and why it cannot, or ""."""
    kind, graph = type(model), ("name", "trainable", "dtype", "layers", "input_layers", "output_layers")
    if not _own_training(model):
        return keras.Model, ""
    try:
        settings = {name: value for name, value in model.get_config().items() if name not in graph}
        trial = kind(model.input, model.output, name=model.name, **settings)
        if list(map(id, trial.outputs)) != list(map(id, model.outputs)):
            return keras.Model, "its __init__ does not take inputs and outputs"
    except Exception as error:  # a user's class may raise anything
        return keras.Model, " ".join(str(error).split())
    return lambda inputs, outputs, name: kind(inputs, outputs, name=name, **settings), ""


def _own_training(model: keras.Model) -> list[str]:
    """The names of the training methods that a model's class overrides."""
    return [name for name in TRAINING_METHODS if not keras_private.is_from_keras(getattr(type(model), name))]


def clone(
    model: keras.Model,
    replace: Callable[[Node, Tensors], Tensors | None] = lambda node, tensors: None,
    wrap: Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor] = lambda old, new: new,
    inputs: Tensors | None = None,
) -> keras.Model:
    """A copy of a model, weights included, with nested models flattened and with changes.

    A layer of a nested model whose name is taken gets the nested model's name in front.

    Args:
        model: functional or Sequential.
        replace: from a node and its inputs in the copy to its outputs there; None: those of the copied node.
        wrap: from an output of a node and that in the copy to what reads it there.
        inputs: of the copy, if not `new_inputs`.
    Raises:
        ValueError: a layer cannot be built from its config, or a nested model is called with a mask or other arguments.
    """
    operations, names, own = {}, set(), {node.operation.name for node in nodes(model)}
    zeros, masked = [], []  # for and of layers that are opened

    def copied(op: keras.Operation, within: keras.Model) -> keras.Operation:
        if id(op) not in operations:
            name = op.name
            while name in names or (within is not model and name in own):
                name = f"{within.name}_{name}"
            names.add(name)
            if isinstance(op, keras.Layer):
                operations[id(op)] = rules.clone_layer(op, name=name)
            else:
                operations[id(op)] = keras_private.renamed(op, name)
        return operations[id(op)]

    inputs = new_inputs(model) if inputs is None else inputs

    def run(inner: keras.Model, given: Tensors, context: dict[str, bool]) -> Tensors:
        built = {id(tensor): new for tensor, new in zip(_functional(inner).inputs, given)}
        for node in nodes(inner):
            if isinstance(node.operation, keras.layers.InputLayer):
                continue
            op, tensors = node.operation, [built[id(tensor)] for tensor in node.input_tensors]
            changes = dict(context) if isinstance(op, keras.Layer) else {}
            outputs = replace(node, tensors)
            if outputs is None and _is_model(op):
                flat, own_context = _nested_call(node, tensors)
                outputs = run(op, flat, own_context | changes)
            elif outputs is None and (within := _opened(node, tensors)):
                zeros[:] = zeros or [_zeros([*inputs, *tensors])]
                outputs = run(within, [*tensors, *zeros], keras_private.training(node) | context)
                masked.append(masks.pass_on(node, tensors, outputs))
            elif outputs is None:
                new = copied(op, inner)
                changes |= masks.implicit(node, tensors) if any(masked) else {}
                outputs = keras_private.call(node, new, tensors, **changes)
                if isinstance(op, keras.Layer):
                    rules.set_weights(new, op.get_weights())
            built |= {id(old): wrap(old, new) for old, new in zip(node.outputs, outputs)}
        return [built[id(tensor)] for tensor in _functional(inner).outputs]

    return with_outputs(model, run(model, inputs, {}), inputs)


def _zeros(tensors: Tensors) -> keras.KerasTensor:
    """A zero for each example of some tensors."""
    return recording.zeros_like_examples(next(x for x in tensors if x.dtype != "string"))


def _nested_call(node: Node, tensors: Tensors) -> tuple[Tensors, dict[str, bool]]:
    """The inputs of a nested model's call, and {"training": ...} for its layers if the call says that.

    Args:
        tensors: in place of `node.input_tensors`.
    """
    model = node.operation
    recorded, given = (_bound(model, *keras_private.arguments(node, own)) for own in (None, tensors))
    training, mask = recorded.pop("training", None), tree.flatten(recorded.pop("mask", None))
    # Keras passes on the masks that come with the inputs, and they come with them in the copy, too.
    own_masks = [keras_private.mask_of(tensor) for tensor in tree.flatten(recorded.pop("inputs"))]
    other = [name for name, value in recorded.items() if value is not None]
    other += ["mask"] if any(x is not None and not any(x is own for own in own_masks) for x in mask) else []
    if other:
        raise ValueError(
            f"{model.name} is called with {', '.join(other)}=, but only the inputs and training= of a nested model's "
            "call can be kept: call its layers one by one"
        )
    inputs = keras_private.flat_inputs(_functional(model), given["inputs"])
    return inputs, {} if training is None else {"training": training}


def _opened(node: Node, tensors: Tensors | None = None) -> keras.Model | None:
    """What is in a layer of somebody's own class, if no rule is for it as a whole and it can be opened.

    Args:
        tensors: in place of `node.input_tensors`.
    """
    is_barrier = recording.is_own(node.operation) and type(rules.of(node)) is rules.Barrier
    return opening.opened(node, tensors)[0] if is_barrier else None


def _bound(model: keras.Model, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a nested model's call by their names."""
    found = inspect.signature(_functional(model).call).bind(*args, **kwargs).arguments
    return found | found.pop("kwargs", {})


def _has(operation: Any, attribute: str) -> bool:
    """Whether an attribute of an operation, or of a layer in it, is set."""
    inner = keras_private.inner_layers(operation) if isinstance(operation, keras.Layer) else []
    return any(getattr(each, attribute, None) for each in [operation, *inner])


def flatten_nested(model: keras.Model) -> keras.Model:
    """The model itself, or a copy without nested models if it has any.

    Raises:
        ValueError: it is neither functional nor Sequential, it is quantized, or `clone` cannot copy it.
    """
    model = _written_as(opening.functional(model), canonical)
    # A layer that cannot be opened in a nested model may be in the model itself, where the shapes are known.
    while any(_is_model(node.operation) or _opened(node) for node in nodes(model)):
        model = _written_as(clone(model), canonical)
    model = _written_as(_written_as(model, layout), canonical)
    operations = [node.operation for node in nodes(model)]
    if tied := [node.operation.name for node in nodes(model) if keras_private.weights_in(node)]:
        raise ValueError(
            f"{', '.join(tied)}: a weight of a layer is read outside of it, and a copy would read this model's. "
            "Write a layer of your own that holds the weight and reads it"
        )
    if quantized := {op.name for op in operations if _has(op, "quantization_mode")}:
        raise ValueError(f"{', '.join(sorted(quantized))}: already quantized. Prune first, then quantize the result")
    if lora := {op.name for op in operations if isinstance(op, ATTENTION) and _has(op, "lora_enabled")}:
        raise ValueError(f"{', '.join(sorted(lora))}: LoRA inside attention. Merge it into the kernels first")
    return model


def _written_as(model: keras.Model, form: ModuleType) -> keras.Model:
    """A model in the form of a module that has `outputs`; the model itself if it is in that form."""
    functional = _functional(model)
    outputs = form.outputs(nodes(model), functional.inputs, functional.outputs)
    return model if outputs is None else with_outputs(model, outputs)


def _is_model(operation: Any) -> bool:
    has_graph = isinstance(operation, keras.Model) and keras_private.functional(operation) is not None
    return has_graph and not _has_own_call(operation)


def _has_own_call(model: keras.Model) -> bool:
    """Whether its class computes something else than its graph."""
    return not keras_private.is_from_keras(type(model).call)


def _functional(model: keras.Model) -> keras.Model:
    functional = keras_private.functional(model)
    if functional is None:
        if isinstance(model, keras.Sequential):
            raise ValueError(f"{model.name} is not built: start it with an Input, or call it on data")
        raise ValueError(f"{model.name} is a subclass of keras.Model without a graph: pass a functional or Sequential")
    if _has_own_call(model):
        raise ValueError(
            f"{model.name} has a call() of its own, which its graph does not show: pass keras.Model(model.input, "
            "model.output), or the like"
        )
    return functional
