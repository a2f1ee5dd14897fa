"""Layers with noise inside: what multiplies the units of a recurrent layer at each step, and heads of attention.

The noise is that of an SBP layer, which is called on ones and gives theta; a layer here multiplies weights by it.
"""

import abc
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="sbp")
class Ones(keras.layers.Layer):
    """Ones for a number of units, (1, units), whatever it is called on: what a layer of noise turns into theta."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return ops.ones((1, self.units), self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class InnerNoise(keras.layers.Layer, abc.ABC):
    """A layer some of whose weights are multiplied by noise whenever it is called.

    It is called on a dict of the layer's tensors by the names of the arguments of its `call`, and of the theta, (1,
    units) each, by the names in `noises`.

    Args:
        layer: the layer.
        settings: the other arguments of its `call`.
    """

    noises: tuple[str, ...] = ()

    def __init__(self, layer: keras.layers.Layer, settings: Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.layer = layer
        self.settings = dict(settings or {})
        self.supports_masking = True

    def call(self, inputs: Mapping[str, keras.KerasTensor], training: bool = False) -> keras.KerasTensor:
        given = self.arguments({name: tensor for name, tensor in inputs.items() if name not in self.noises})
        theta = {name: inputs[name][0] for name in self.noises if name in inputs}
        # All of the layer's, as a scope does not know what the one around it says, like that of `fit` on JAX.
        before = [(variable, variable.value) for variable in (*self.layer.trainable_variables, *self.state())]
        scaled = self.scaled(theta)
        with keras.StatelessScope(before, collect_losses=True) as scope:
            for update in scaled:
                scope.add_update(update)
            # As in a functional model, what `fit` says of training counts, not what the call was recorded with.
            outputs = self.layer(**given, **{**self.settings, "training": training})
        for loss in scope.losses:
            self.add_loss(loss)
        # What else changes, like the state of a random generator. Weights may be frozen, and then are no less ours.
        weights = {id(variable) for variable in (*self.layer.trainable_variables, *(weight for weight, _ in scaled))}
        for variable, value in before:
            after = scope.get_current_value(variable)
            if after is not value and id(variable) not in weights:
                variable.assign(after)
        return outputs

    def arguments(self, tensors: dict[str, keras.KerasTensor]) -> dict[str, Any]:
        """The arguments of the layer's call, from its tensors by name."""
        return tensors

    @abc.abstractmethod
    def scaled(self, theta: dict[str, keras.KerasTensor]) -> list[tuple[keras.Variable, keras.KerasTensor]]:
        """[(weight, its value with noise)], for theta of (units,)."""

    def state(self) -> list[keras.Variable]:
        """The variables that a call may change."""
        return self.layer.non_trainable_variables

    def get_config(self) -> dict[str, Any]:
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "settings": self.settings}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # Without its shapes: it is built in this layer, so that its weights have the paths that they had.
        layer = {key: value for key, value in config.pop("layer").items() if key != "build_config"}
        settings = keras.saving.deserialize_keras_object(config.pop("settings"))  # a mask may be an array
        return cls(keras.saving.deserialize_keras_object(layer), settings, **config)


@keras.saving.register_keras_serializable(package="sbp")
class NoisyRecurrent(InnerNoise):
    """A recurrent layer, or Bidirectional, whose state is multiplied by noise whenever the next step reads it.

    The tensors of its initial state are named initial_state0, initial_state1 ...
    """

    noises = ("units",)

    def build(self, input_shape: dict[str, tuple]) -> None:
        if not self.layer.built:
            self.layer.build(input_shape["sequences"])

    def compute_mask(self, inputs: Mapping[str, Any], previous_mask: Mapping[str, Any]) -> Any:
        # Beside an initial state, Keras does not tell the layer of the mask of its sequences, but passes it on.
        return self.layer.compute_mask(inputs["sequences"], inputs.get("mask", previous_mask["sequences"]))

    def arguments(self, tensors: dict[str, keras.KerasTensor]) -> dict[str, Any]:
        return with_initial_state(tensors)

    def scaled(self, theta: dict[str, keras.KerasTensor]) -> list[tuple[keras.Variable, keras.KerasTensor]]:
        found, cells, units = [], self.cells(), theta["units"]
        for number, cell in enumerate(cells):
            kernel = cell.recurrent_kernel
            count = kernel.shape[-2]
            start = number * cells[0].recurrent_kernel.shape[-2] if units.shape[0] > count else 0
            scale = ops.cast(units[start : start + count], kernel.dtype)
            found.append((kernel, kernel.value * scale[:, None]))
        return found

    def cells(self) -> list[keras.Layer]:
        return [layer.cell for layer in self.directions()]

    def directions(self) -> list[keras.Layer]:
        if isinstance(self.layer, keras.layers.Bidirectional):
            return [self.layer.forward_layer, self.layer.backward_layer]
        return [self.layer]

    def state(self) -> list[keras.Variable]:
        states = [layer.states for layer in self.directions() if layer.states is not None]
        return [*super().state(), *keras.tree.flatten(states)]


def with_initial_state(tensors: Mapping[str, keras.KerasTensor]) -> dict[str, Any]:
    """The arguments of a recurrent layer's call, with initial_state0, initial_state1 ... in one list."""
    states = sorted(name for name in tensors if name.startswith("initial_state"))
    found = {name: tensor for name, tensor in tensors.items() if name not in states}
    return found | ({"initial_state": [tensors[name] for name in states]} if states else {})


@keras.saving.register_keras_serializable(package="sbp")
class NoisyAttention(InnerNoise):
    """MultiHeadAttention or GroupQueryAttention with noise on the output of each head, on each dimension of the
    products of queries and keys, and on each dimension of the values: those of each head of keys and values."""

    noises = ("heads", "query_key", "values")

    def build(self, input_shape: dict[str, tuple]) -> None:
        if not self.layer.built:
            self.layer.build(*(input_shape[name] for name in ("query", "value", "key") if name in input_shape))

    def compute_mask(self, inputs: Mapping[str, Any], previous_mask: Mapping[str, Any]) -> Any:
        return inputs.get("query_mask", previous_mask["query"])

    def scaled(self, theta: dict[str, keras.KerasTensor]) -> list[tuple[keras.Variable, keras.KerasTensor]]:
        found, weights = [], projections(self.layer)
        for projection, name in ("key", "query_key"), ("value", "values"):
            for weight in weights[projection]:
                scale = ops.reshape(theta[name], weight.shape[-2:])
                found.append((weight, weight.value * ops.cast(scale, weight.dtype)))
        kernel = weights["output"][0]
        return [*found, (kernel, kernel.value * ops.cast(theta["heads"], kernel.dtype)[:, None, None])]


def projections(attention: keras.layers.Layer) -> dict[str, list[keras.Variable]]:
    """The kernel and, if it has one, the bias of each projection of an attention layer."""
    names, weights = ("query", "key", "value", "output"), attention.weights
    each = len(weights) // len(names)
    return {name: weights[each * number : each * (number + 1)] for number, name in enumerate(names)}
