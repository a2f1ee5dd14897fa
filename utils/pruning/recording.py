"""The graph of what a layer computes: its `call` is run on symbolic tensors, which records the layers and operations in
it, and what was recorded is played again as a model.

While it is recorded, there are `EXAMPLES` examples, as Python may ask for their number. Played again, a reshape to so
many is one to any number, and what is repeated so often is broadcast. A weight that the layer holds itself, like a class
token or a table of positions, becomes the table of an Embedding, and rows of it are looked up.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import Array

EXAMPLES = 47  # a number that sizes of layers are not
# Operations that broadcast their operands.
BROADCASTING = frozenset(
    "Add Divide Equal Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Multiply NotEqual "
    "Power Subtract TrueDivide Where".split()
)


class Copy(NamedTuple):
    """A variable of a model that is to be what a function returns."""

    variable: keras.Variable
    value: Any


class Rows(NamedTuple):
    """A tensor whose last axis is that of a weight, and each of whose rows is one of the weight's.

    Attributes:
        weight: (..., units).
        index: the numbers of the rows.
    """

    weight: keras.Variable
    index: Array


def own_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """{attribute: weight} of those that a layer holds itself."""
    inner = {id(weight) for each in keras_private.inner_layers(layer) for weight in each.weights}
    own = {id(weight) for weight in layer.weights} - inner
    return {name: value for name, value in vars(layer).items() if id(value) in own}


def is_own(layer: keras.Operation) -> bool:
    """Whether a layer is of somebody's own class."""
    known = keras_private.is_from_keras(type(layer)) or type(layer).__module__.startswith("keras_sbp.")
    return isinstance(layer, keras.Layer) and not known


def record(node: Node, tensors: Sequence[keras.KerasTensor]) -> tuple[keras.Model, list[Copy]]:
    """A model of what the layer of a node computes of tensors of these shapes; and its variables that are copies of the
    layer's.

    Its inputs are those of the node and, after them, zeros for each example, (examples, 1) int32.

    Raises:
        Exception: whatever the layer raises on symbolic tensors.
    """
    recorder = _Recorder(node.operation, node.input_tensors, tensors, *keras_private.arguments(node))
    return recorder.model, recorder.copies


def zeros_like_examples(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A 0 for each example of a tensor: (examples, 1) int32."""
    first = tensor[(slice(None), *(slice(0, 1),) * (len(tensor.shape) - 1))]
    return ops.zeros_like(ops.reshape(first, (-1, 1)), dtype="int32")


class _Within:
    """A layer in the layer that is recorded: an Embedding that may be called on numbers, too; or a layer of somebody's
    own class, which becomes a node if Keras can make one of it, and a nested model if not."""

    def __init__(self, layer: keras.Layer, recorder: "_Recorder"):
        self._layer, self._recorder = layer, recorder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        layer = self._layer
        if isinstance(layer, keras.layers.Embedding):
            first, *others = args
            is_symbol = isinstance(first, keras.KerasTensor)
            return layer(first if is_symbol else self._recorder.source(ops.convert_to_numpy(first)), *others, **kwargs)
        try:
            return keras_private.traced_call(layer, args, kwargs)
        except Exception:  # somebody's layer may raise anything
            return self._recorder.nested(layer, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


class _Recorder:
    """See `record`.

    Attributes:
        values: {id of a recorded tensor: the tensor in the model, `Rows`, or an array}.
    """

    def __init__(
        self,
        layer: keras.Layer,
        tensors: Sequence[keras.KerasTensor],
        shaped: Sequence[keras.KerasTensor],
        args: tuple,
        kwargs: dict[str, Any],
    ):
        self.layer, self.values, self.sources, self.tables, self.copies = layer, {}, [], {}, []
        shapes = [(tensor.shape[0] or EXAMPLES, *tensor.shape[1:]) for tensor in shaped]
        recorded = [keras.Input(batch_shape=shape, dtype=tensor.dtype) for shape, tensor in zip(shapes, shaped)]
        self.recorded = recorded
        inputs = [keras.Input(batch_shape=(*_any_example(x.shape[:1]), *x.shape[1:]), dtype=x.dtype) for x in shaped]
        self.zeros, self.recorded_zeros = keras.Input((1,), dtype="int32"), keras.Input(batch_shape=(EXAMPLES, 1))
        self.values |= zip(map(id, [*recorded, self.recorded_zeros]), [*inputs, self.zeros])
        self.sources.append(self.recorded_zeros)
        new = dict(zip(map(id, tensors), recorded))
        args, kwargs = tree.map_structure(lambda x: new.get(id(x), x), (args, kwargs))
        self.returned = self._run(args, kwargs)
        outputs = [tensor for tensor in tree.flatten(self.returned) if tensor is not None]
        for each in keras_private.nodes(keras.Model([*recorded, *self.sources], outputs)):
            if not isinstance(each.operation, keras.layers.InputLayer):
                self.values |= zip(map(id, each.outputs), self._played(each))
        outputs = [self._of_each_example(self.values[id(tensor)], tensor) for tensor in outputs]
        self.model = keras.Model([*inputs, self.zeros], outputs, name=layer.name)

    def nested(self, layer: keras.Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What another layer returns for symbolic tensors: outputs of a nested model of what it computes."""
        given = {id(x): x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)}
        tensors = list(given.values())
        within = _Recorder(layer, tensors, tensors, args, kwargs)
        self.copies += within.copies
        returned = tree.flatten(within.returned)
        passed = {id(recorded): tensor for recorded, tensor in zip(within.recorded, tensors)}
        made = [id(tensor) not in passed for tensor in returned if tensor is not None]
        model = keras.Model(within.model.inputs, list(itertools.compress(within.model.outputs, made)), name=layer.name)
        outputs = iter(tree.flatten(model([*tensors, self.recorded_zeros])))
        found = [None if x is None else passed[id(x)] if id(x) in passed else next(outputs) for x in returned]
        return tree.pack_sequence_as(within.returned, found)

    def source(self, value: Array | keras.Variable) -> keras.KerasTensor:
        """A symbolic tensor in place of an array, or of a weight that a layer holds itself."""
        tensor = keras.Input(batch_shape=tuple(value.shape), dtype=keras.backend.standardize_dtype(value.dtype))
        is_weight = isinstance(value, keras.Variable)
        count = int(np.prod(value.shape[:-1]))
        self.values[id(tensor)] = Rows(value, np.arange(count).reshape(value.shape[:-1])) if is_weight else value
        self.sources.append(tensor)
        return tensor

    def _run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        layer = self.layer
        inside = object.__new__(type(layer))  # copy.copy would copy its layers, too
        inside.__dict__.update(vars(layer) | self._symbols())
        if "training" in inspect.signature(layer.call).parameters:
            kwargs = kwargs | {"training": None}  # not its default: it is known when the model is called
        losses = keras_private.own_losses(layer)
        before = len(losses)
        outputs = type(layer).call(inside, *args, **kwargs)
        added = losses[before:]
        del losses[before:]
        if added or layer.activity_regularizer is not None:
            raise ValueError("it adds a loss")
        return outputs

    def _symbols(self) -> dict[str, Any]:
        """{attribute: what stands for it while the layer's `call` is recorded}."""
        weights, found = own_weights(self.layer), {}
        for name, value in vars(self.layer).items():
            if name in weights:
                found[name] = self.source(value)
            elif ops.is_tensor(value):
                found[name] = self.source(ops.convert_to_numpy(value))
            elif isinstance(value, (list, tuple)) and any(map(_is_within, value)) and not name.startswith("_"):
                found[name] = [_Within(each, self) if _is_within(each) else each for each in value]
            elif _is_within(value):
                found[name] = _Within(value, self)
        return found

    def _played(self, node: Node) -> list:
        given = [self.values[id(tensor)] for tensor in node.input_tensors]
        is_symbolic = any(isinstance(value, keras.KerasTensor) for value in given)
        if not is_symbolic and not isinstance(node.operation, keras.Layer):
            weights = {id(value.weight): value.weight for value in given if isinstance(value, Rows)}
            if not weights:
                return [ops.convert_to_numpy(x) for x in keras_private.call(node, node.operation, given)]
            if len(weights) == 1 and len(node.outputs) == 1:
                found = _rows(node, given, *weights.values())
                if found is not None:
                    return [found]
        return self._symbolic(node, given)

    def _symbolic(self, node: Node, given: list) -> list[keras.KerasTensor]:
        """The outputs of a node of which some input is a symbolic tensor."""
        operation, (output, *_) = node.operation, node.outputs
        if keras_private.is_keras_op(operation, {"BroadcastTo", "Tile"}) and _is_repeated(node):
            tensor = self._tensor(given[0])
            return [ops.reshape(tensor, (1, *output.shape[1:]))]
        broadcasts = keras_private.is_keras_op(operation, BROADCASTING)
        whole = isinstance(operation, keras.Layer) or not broadcasts and len(given) > 1
        make = self._of_each_example if whole else lambda value, tensor: self._tensor(value, len(output.shape))
        tensors = [make(value, tensor) for value, tensor in zip(given, node.input_tensors)]
        if not whole and not broadcasts:
            tensors = [self._tensor(value) for value in given]
        if keras_private.is_keras_op(operation, {"Reshape"}) and not isinstance(operation, keras.Layer):
            return [ops.reshape(tensors[0], _any_number(operation.newshape, output.shape))]
        args, kwargs = keras_private.arguments(node, tensors)
        if keras_private.is_keras_op(operation, {"Slice"}):
            starts = [*args[1:], *kwargs.values()][0]
            return [tensors[0][tuple(_part(start, size) for start, size in zip(starts, operation.shape))]]
        args, kwargs = tree.map_structure(self._number, (args, kwargs))
        if keras_private.is_keras_op(operation, {"Concatenate", "Stack"}):
            args = tree.map_structure(lambda x: x if isinstance(x, keras.KerasTensor) else self._repeated(x), args)
        return tree.flatten(keras_private.traced_call(operation, args, kwargs))

    def _number(self, value: Any) -> Any:
        """An argument of an operation: arrays of one number as that number, repeated ones once."""
        if isinstance(value, keras.KerasTensor) or not (ops.is_tensor(value) or isinstance(value, np.ndarray)):
            return value
        if len(value.shape) == 0:
            return ops.convert_to_numpy(value).item()
        return value[:1] if value.shape[0] == EXAMPLES else value

    def _repeated(self, value: Any) -> Any:
        return self._with_examples(self._constant(ops.convert_to_numpy(value))) if ops.is_tensor(value) else value

    def _of_each_example(self, value: Any, recorded: keras.KerasTensor) -> keras.KerasTensor:
        """A tensor with as many examples as was recorded."""
        tensor = self._tensor(value)
        is_once = len(recorded.shape) and recorded.shape[0] == EXAMPLES and tensor.shape[0] == 1
        return self._with_examples(tensor) if is_once else tensor

    def _with_examples(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        zeros = ops.reshape(ops.zeros_like(self.zeros, dtype="float32"), (-1, *(1,) * (len(tensor.shape) - 1)))
        return ops.cast(tensor + zeros, tensor.dtype) if tensor.dtype != "float32" else tensor + zeros

    def _tensor(self, value: Any, rank: int = 0) -> keras.KerasTensor:
        """A value as a tensor of at least this many axes."""
        if isinstance(value, keras.KerasTensor):
            return value
        shape = value.index.shape if isinstance(value, Rows) else value.shape
        missing = rank - len(shape) - isinstance(value, Rows)
        array = value.index if isinstance(value, Rows) else value
        array = array[:1] if shape and shape[0] == EXAMPLES else array
        array = array.reshape((1,) * missing + array.shape)
        return self._table(value.weight)(self._constant(array)) if isinstance(value, Rows) else self._constant(array)

    def _constant(self, array: Array) -> keras.KerasTensor:
        zero = ops.take(ops.reshape(self.zeros, (-1,)), [0])
        zero = ops.cast(ops.reshape(zero, (1,) * array.ndim), keras.backend.standardize_dtype(array.dtype))
        return zero + array

    def _table(self, weight: keras.Variable) -> keras.layers.Embedding:
        if id(weight) not in self.tables:
            units = weight.shape[-1] if len(weight.shape) else 1
            count = int(np.prod(weight.shape[:-1]))
            name = f"{self.layer.name}_{weight.name}"
            table = keras.layers.Embedding(count, units, name=name, dtype=self.layer.dtype_policy)
            table.build()
            table.trainable = weight.trainable
            self.copies.append(Copy(table.embeddings, lambda: np.asarray(weight).reshape(count, units)))
            self.tables[id(weight)] = table
        return self.tables[id(weight)]


def _rows(node: Node, given: Sequence[Rows | Array], weight: keras.Variable) -> Rows | None:
    """The output of an operation on rows of a weight, if it is rows of it: then it moves numbers, whatever they are."""
    units = weight.shape[-1] if len(weight.shape) else 1

    def moved(numbers: Any) -> Array:
        """The operation on these numbers, a function of rows and columns, in place of the weight."""
        tensors = [
            ops.convert_to_tensor(numbers(value.index[..., None], np.arange(units)).astype(np.float32), weight.dtype)
            if isinstance(value, Rows)
            else value
            for value in given
        ]
        (output,) = keras_private.call(node, node.operation, tensors)
        return ops.convert_to_numpy(output).astype(np.float64)

    of_rows = moved(lambda row, column: row + 0 * column)
    others = moved(lambda row, column: 5 - 3 * row + 0 * column)
    of_columns = moved(lambda row, column: 0 * row + column)
    same = np.array_equal(others, 5 - 3 * of_rows) and of_rows.ndim and of_rows.shape[-1] == units
    if not same or (of_columns != np.arange(units)).any() or (of_rows != of_rows[..., :1]).any():
        return None
    return Rows(weight, of_rows[..., 0].astype(int))


def _is_within(value: Any) -> bool:
    kinds = (keras.layers.Embedding, keras.layers.EinsumDense)
    return isinstance(value, kinds) or (isinstance(value, keras.Layer) and is_own(value))


def _any_example(sizes: tuple[int | None, ...]) -> list[int | None]:
    return [None if size == EXAMPLES else size for size in sizes]


def _is_repeated(node: Node) -> bool:
    """Whether a broadcast or tile only repeats a tensor for each example."""
    before, after = node.input_tensors[0].shape, node.outputs[0].shape
    rest = (1,) * (len(after) - len(before)) + tuple(before)
    return after[0] == EXAMPLES and rest == (1, *after[1:])


def _any_number(shape: Sequence[int], output: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of a reshape for any number of examples.

    Args:
        shape: it as recorded.
        output: that of the recorded output.
    """
    if None not in output:
        return tuple(-1 if axis == 0 and size % EXAMPLES == 0 else size for axis, size in enumerate(output))
    found = tuple(-1 if size in (None, EXAMPLES) else size for size in shape)
    if found.count(-1) > 1:
        raise ValueError("it reshapes to several lengths that are not known")
    return found


def _part(start: Any, size: int) -> slice:
    return slice(None) if size == EXAMPLES else slice(int(start), int(start) + size)
