"""Layers and models of somebody's own class as graphs of stock layers and operations.

Such a layer is one stock layer (`equivalents.py`), or what its `call` does on symbolic tensors (`recording.py`). Either
is compared with the layer, at test time and in training with the same seeds, for other weights than its own, and used
only if it computes the same.
"""

import re
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning import equivalents, recording
from keras_sbp.utils.pruning.recording import zeros_like_examples
from keras_sbp.utils.pruning.replaying import Copy

TOLERANCE = 1e-5


class Opened(NamedTuple):
    """What is in a layer.

    Attributes:
        model: of the inputs of a call and, after them, zeros for each example; None if there is none.
        why: there is none.
        copies: the variables of the model that are copies of the layer's; it shares the others.
    """

    model: keras.Model | None
    why: str
    copies: list[Copy]


# {layer: (shapes of its last call, its settings, what is in it)}
_OPENED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def opened(node: Node, tensors: list[keras.KerasTensor] | None = None) -> tuple[keras.Model | None, str]:
    """A model that computes what the layer of a node does, see `Opened`; or None, and why there is none.

    Args:
        node: a call of the layer.
        tensors: of shapes that are known better, in place of `node.input_tensors`.
    """
    layer = node.operation
    if not recording.is_own(layer):
        return None, ""
    tensors = node.input_tensors if tensors is None else tensors
    shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
    if layer not in _OPENED or _OPENED[layer][:2] != (shapes, _settings(layer)):
        try:
            if len({_called(call) for call in keras_private.calls(layer)}) > 1:
                raise ValueError("its calls have different arguments")
            found = _open(node, tensors)
        except Exception as error:  # somebody's layer may raise anything
            found = Opened(None, f"cannot be opened: {_said(error)}", [])
        _OPENED[layer] = shapes, _settings(layer), found
    *_, found = _OPENED[layer]
    _update(found.copies)
    return found.model, found.why


def _settings(layer: keras.Layer) -> str:
    """What a layer computes with besides its weights' values: the plain attributes of it and of the layers in it, and
    which weights are trained."""
    plain, common = (bool, int, float, str, tuple, list, dict, type(None)), vars(keras.Layer())
    inner = [each for each in layer._flatten_layers() if isinstance(each, keras.Layer)]
    found = [
        {name: value for name, value in vars(each).items() if name not in common and isinstance(value, plain)}
        for each in inner
    ]
    return repr((found, [each.dtype_policy.name for each in inner], [weight.trainable for weight in layer.weights]))


def _called(node: Node) -> str:
    """How a layer is called, but for what its tensors hold and for `training`."""
    args, kwargs = keras_private.arguments(node)
    place = {id(tensor): number for number, tensor in enumerate(node.input_tensors)}

    def said(value: object) -> str:
        if id(value) in place:
            return f"tensor {place[id(value)]}"
        return repr(np.asarray(value).tolist()) if hasattr(value, "shape") else repr(value)

    return repr(tree.map_structure(said, (args, {name: kwargs[name] for name in kwargs if name != "training"})))


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
        whole = keras.Model(inputs, model(inputs), name=model.name)
        (node,) = [node for node in keras_private.nodes(whole) if node.operation is model]
        found, why = opened(node)
    except Exception as error:  # somebody's model may raise anything
        found, why = None, _said(error)
    if found is None:
        raise ValueError(
            f"{model.name} is a subclass of keras.Model whose call cannot be run on symbolic tensors ({why}): pass a "
            "functional or Sequential"
        )
    try:
        inputs = tree.pack_sequence_as(inputs, found.inputs[:-1])
        return keras.Model(inputs, tree.pack_sequence_as(whole.output, found.outputs), name=model.name)
    except ValueError:  # the zeros are needed
        outputs = found([*node.input_tensors, zeros_like_examples(node.input_tensors[0])])
        return keras.Model(whole.input, tree.pack_sequence_as(whole.output, tree.flatten(outputs)), name=model.name)


def _open(node: Node, tensors: list[keras.KerasTensor]) -> Opened:
    for candidate in _candidates(node):
        if not _difference(node, tensors, *candidate):
            return Opened(candidate.model, "", candidate.copies)
    model, copies = recording.record(node, tensors)
    if difference := _difference(node, tensors, model, copies):
        raise ValueError(difference)
    return Opened(model, "", copies)


def _candidates(node: Node) -> Iterator[equivalents.Candidate]:
    try:
        yield from equivalents.candidates(node)
    except Exception:  # somebody's class may want other settings than the one that it derives from
        return


def _difference(
    node: Node,
    tensors: list[keras.KerasTensor],
    model: keras.Model,
    copies: list[Copy],
    draws_otherwise: bool = False,
) -> str:
    """What a model computes else than a layer, at test time or in training; "" if nothing.

    Args:
        tensors: of the shapes of the inputs.
        model: of the node's inputs and zeros for each example.
        copies: its variables that are copies of the layer's.
        draws_otherwise: whether, in training, it need only drop examples as the layer does.
    """
    layer = node.operation
    before = [np.asarray(variable) for variable in layer.variables]

    def run(function: Callable, training: bool) -> list[np.ndarray]:
        """The outputs of the layer or the model, with weights that others than these are, too."""
        rng = np.random.default_rng(1)
        for variable, value in zip(layer.variables, before):
            variable.assign(_other_weight(variable, value, rng))
        _update(copies)
        with keras_private.same_draws():
            outputs = [output for output in tree.flatten(function(training)) if output is not None]
        return [ops.convert_to_numpy(output).astype(np.float32) for output in outputs]

    def difference(training: bool, scale: float = 1.0, end: int = 1) -> str:
        rng = np.random.default_rng(0)
        given = [_random(rng, tensor, scale, end) for tensor in tensors]
        zeros = ops.zeros((len(given[0]), 1), "int32")
        args, kwargs = keras_private.arguments(node, given)
        kwargs.pop("training", None)
        try:
            expected = run(lambda training: layer(*args, **kwargs, training=training), training)
        except Exception:
            if (scale, end) == (1, 1):
                raise
            return ""  # it does not take such inputs
        try:
            found = run(lambda training: model([*given, zeros], training=training), training)
            same = _drop_alike if draws_otherwise and training else _are_equal
            if len(expected) == len(found) and all(map(same, expected, found)):
                return ""
        except Exception:  # such as that for a word that is in no table
            if (scale, end) == (1, 1):
                raise
        return f"its layers compute something else {'in training' if training else 'at test time'}"

    trials = [(False,), (True,), *((False, *scale_and_end) for scale_and_end in _far_from_one(layer, tensors))]
    try:
        return next(filter(None, (difference(*trial) for trial in trials)), "")
    finally:
        for variable, value in zip(layer.variables, before):
            variable.assign(value)
        _update(copies)


def _far_from_one(layer: keras.Layer, tensors: list[keras.KerasTensor]) -> Iterator[tuple[float, int]]:
    """Scales and ends for `_random`: some layers clip, have an epsilon, or have a row for unknown words, and are what
    they seem to be near 1 only."""
    if any("float" in tensor.dtype for tensor in tensors):
        whole_range = layer.compute_dtype in ("float32", "float64")
        yield from ((scale, 1) for scale in ((1e-4, 1e3) if whole_range else (0.01, 30.0)))
    if any("int" in tensor.dtype for tensor in tensors):
        yield from ((1.0, end) for end in (2**20, -(2**20)))


def _update(copies: list[Copy]) -> None:
    for copy in copies:
        copy.variable.assign(copy.value())


def _random(rng: np.random.Generator, tensor: keras.KerasTensor, scale: float, end: int) -> keras.KerasTensor:
    """Floats of about a scale, or whole numbers between 0 and an end."""
    shape = (tensor.shape[0] or 8, *(size or 6 for size in tensor.shape[1:]))
    if tensor.dtype == "bool":
        values = rng.integers(2, size=shape)
    elif "int" in tensor.dtype:
        of_dtype = np.iinfo(tensor.dtype)
        low, high = np.clip(sorted((0, end)), of_dtype.min, of_dtype.max)
        values = rng.integers(low, high, size=shape, endpoint=True)
    else:
        values = scale * rng.normal(size=shape)
    return ops.convert_to_tensor(values, tensor.dtype)


def _other_weight(variable: keras.Variable, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A value near that of a variable; of a state, which may have to be positive, a multiple."""
    if "float" not in str(variable.dtype):
        return value
    if variable.trainable:
        return value + 0.1 * rng.normal(size=value.shape).astype(value.dtype)
    return value * rng.uniform(0.9, 1.1, size=value.shape).astype(value.dtype)


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Up to rounding; numbers that are not finite are the same."""
    finite = np.isfinite(one)
    if not np.array_equal(np.where(finite, 0, one), np.where(np.isfinite(other), 0, other), equal_nan=True):
        return False
    one, other = one[finite], other[finite]
    return bool(np.abs(one - other).max(initial=0) <= TOLERANCE * max(np.abs(one).max(initial=0), 1e-30))


def _drop_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether examples are 0 or, if not, the same."""
    both = np.array([a.any() and b.any() for a, b in zip(one, other)])
    return one.shape == other.shape and any(both) and _are_equal(one[both], other[both])


def _said(error: Exception) -> str:
    """An error in a line, without what Keras writes around it."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return re.sub(r"^Exception encountered when calling \S+ ", "", text)[:100]
