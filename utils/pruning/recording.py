"""The graph of what a layer computes: its `call` is run on symbolic tensors, which records the layers and operations in
it. `replaying.py` makes a model of what was recorded.

While it is recorded, there are `EXAMPLES` examples, as Python may ask for their number.
"""

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.replaying import EXAMPLES, Copy, Player, Rows
from keras_sbp.utils.pruning.rules.rule import Array


def own_weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """{attribute: weight} of those that a layer holds itself."""
    own = _own_ids(layer)
    return {name: value for name, value in vars(layer).items() if id(value) in own}


def _own_ids(layer: keras.Layer) -> set[int]:
    inner = {id(weight) for each in keras_private.inner_layers(layer) for weight in each.weights}
    return {id(weight) for weight in layer.weights} - inner


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
        recorded: symbolic tensors of `EXAMPLES` examples in place of the layer's inputs.
        returned: what its `call` returned.
        model, copies: what was recorded, as a model.
    """

    def __init__(
        self,
        layer: keras.Layer,
        tensors: Sequence[keras.KerasTensor],
        shaped: Sequence[keras.KerasTensor],
        args: tuple,
        kwargs: dict[str, Any],
    ):
        self.layer = layer
        shapes = [(tensor.shape[0] or EXAMPLES, *tensor.shape[1:]) for tensor in shaped]
        self.recorded = [keras.Input(batch_shape=shape, dtype=x.dtype) for shape, x in zip(shapes, shaped)]
        inputs = [keras.Input(batch_shape=(*_any_example(x.shape[:1]), *x.shape[1:]), dtype=x.dtype) for x in shaped]
        zeros, self.recorded_zeros = keras.Input((1,), dtype="int32"), keras.Input(batch_shape=(EXAMPLES, 1))
        self.player, self.sources = Player(layer, zeros), [self.recorded_zeros]
        self.player.values |= zip(map(id, [*self.recorded, self.recorded_zeros]), [*inputs, zeros])
        self.copies = self.player.copies
        new = dict(zip(map(id, tensors), self.recorded))
        args, kwargs = tree.map_structure(lambda x: new.get(id(x), x), (args, kwargs))
        self.returned = self._run(args, kwargs)
        outputs = [tensor for tensor in tree.flatten(self.returned) if tensor is not None]
        self.player.play(keras_private.nodes(keras.Model([*self.recorded, *self.sources], outputs)))
        self.model = keras.Model([*inputs, zeros], list(map(self.player.output, outputs)), name=layer.name)
        for node in keras_private.nodes(self.model):
            if keras_private.weights_in(node):  # a copy would go on with this layer's weight, which it does not train
                raise ValueError(f"{node.operation.name} reads a weight of another layer")

    def nested(self, layer: keras.Layer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What another layer returns for symbolic tensors: outputs of a nested model of what it computes."""
        given = {id(x): x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)}
        tensors = list(given.values())
        within = _Recorder(layer, tensors, tensors, args, kwargs)
        self.copies.extend(within.copies)
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
        self.player.values[id(tensor)] = (
            Rows(value, np.arange(count, dtype="int32").reshape(value.shape[:-1])) if is_weight else value
        )
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
        own, found = _own_ids(self.layer), {}

        def symbol(value: Any) -> Any:
            if id(value) in own:
                return self.source(value)
            if ops.is_tensor(value):
                return self.source(ops.convert_to_numpy(value))
            return _Within(value, self) if _is_within(value) else value

        for name, value in vars(self.layer).items():
            if isinstance(value, (list, tuple, dict)):
                if not name.startswith("_"):  # Keras's own lists
                    found[name] = _each(symbol, value)
            else:
                found[name] = symbol(value)
        return found


def _each(function: Callable[[Any], Any], values: Sequence[Any] | dict[Any, Any]) -> Sequence[Any] | dict[Any, Any]:
    """A list, tuple or dict with each value replaced; itself if all are as before."""
    if isinstance(values, dict):
        new = {key: function(value) for key, value in values.items()}
        return new if any(new[key] is not values[key] for key in new) else values
    new = [function(value) for value in values]
    return new if any(one is not other for one, other in zip(new, values)) else values


def _is_within(value: Any) -> bool:
    kinds = (keras.layers.Embedding, keras.layers.EinsumDense)
    return isinstance(value, kinds) or (isinstance(value, keras.Layer) and is_own(value))


def _any_example(sizes: tuple[int | None, ...]) -> list[int | None]:
    return [None if size == EXAMPLES else size for size in sizes]
