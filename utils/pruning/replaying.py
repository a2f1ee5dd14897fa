"""What was recorded of a layer, played again as a model of stock layers and operations for any number of examples.

A reshape to the number of examples becomes one to any number, and what is repeated so often is broadcast. A weight
that the layer holds itself, like a class token or a table of positions, becomes the table of an Embedding, and rows of
it are looked up; one that something is multiplied by becomes the kernel of a dense layer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.barrier import PRODUCTS
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


class Player:
    """Plays recorded nodes again.

    Args:
        layer: what was recorded.
        zeros: for each example of the model, (examples, 1) int32.
    Attributes:
        values: {id of a recorded tensor: the tensor in the model, `Rows`, or an array}.
        copies: variables that are copies of the layer's.
    """

    def __init__(self, layer: keras.Layer, zeros: keras.KerasTensor):
        self.layer, self.zeros, self.values, self.tables, self.copies = layer, zeros, {}, {}, []

    def play(self, nodes: Sequence[Node]) -> None:
        """Find the `values` of the nodes' outputs, inputs first."""
        for node in nodes:
            if not isinstance(node.operation, keras.layers.InputLayer):
                self.values |= zip(map(id, node.outputs), self._played(node))

    def output(self, recorded: keras.KerasTensor) -> keras.KerasTensor:
        """What a recorded tensor is in the model."""
        return self._of_each_example(self.values[id(recorded)], recorded)

    def _played(self, node: Node) -> list:
        given = [self.values[id(tensor)] for tensor in node.input_tensors]
        table = node.operation
        if type(table) is keras.layers.Embedding and isinstance(given[0], np.ndarray) and not table.mask_zero:
            self.tables[id(table.embeddings)] = table
            return [Rows(table.embeddings, given[0])]
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
        if type(operation).__name__ in PRODUCTS and any(isinstance(value, Rows) for value in given):
            return [self._kernel(node, given)(self._of_each_example(given[0], node.input_tensors[0]))]
        if keras_private.is_keras_op(operation, {"BroadcastTo", "Tile"}) and _is_repeated(node):
            tensor = self._tensor(given[0])
            return [ops.reshape(tensor, (1, *output.shape[1:]))]
        if keras_private.is_keras_op(operation, BROADCASTING):
            tensors = [self._tensor(value, len(output.shape)) for value in given]
        elif isinstance(operation, keras.Layer) or len(given) > 1:
            tensors = [self._of_each_example(value, tensor) for value, tensor in zip(given, node.input_tensors)]
        else:
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

    def _kernel(self, node: Node, given: list) -> keras.layers.Layer:
        """A dense layer in place of a product with a weight that the layer holds itself."""
        x, *others = given
        weight = others[0].weight if len(others) == 1 and isinstance(others[0], Rows) else None
        whole = weight is not None and np.array_equal(others[0].index.ravel(), np.arange(np.prod(weight.shape[:-1])))
        settings = {"name": f"{self.layer.name}_{weight.name}" if whole else "", "dtype": self.layer.dtype_policy}
        operation, layer = node.operation, None
        if whole and isinstance(x, keras.KerasTensor):
            if keras_private.is_keras_op(operation, {"Matmul"}) and len(weight.shape) == 2 and len(x.shape) > 1:
                layer = keras.layers.Dense(weight.shape[-1], use_bias=False, **settings)
            elif keras_private.is_keras_op(operation, {"Einsum"}) and "..." not in operation.subscripts:
                layer = keras.layers.EinsumDense(operation.subscripts, node.outputs[0].shape[1:], **settings)
        if layer is None or id(weight) in self.tables:
            raise ValueError(f"it uses a weight of its own in {operation.name} ({type(operation).__name__})")
        layer.build(x.shape)
        layer.trainable = weight.trainable
        self.copies.append(Copy(layer.kernel, lambda: np.asarray(weight)))
        self.tables[id(weight)] = None  # two copies of a weight would be trained apart
        return layer

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
        if self.tables[id(weight)] is None:
            raise ValueError(f"it uses its weight {weight.name} in several ways")
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
    return Rows(weight, of_rows[..., 0].astype("int32"))


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
