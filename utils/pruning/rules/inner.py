"""What the rules of layers that can have noise inside have in common: see `layers.inner_noise`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.layers.inner_noise import InnerNoise, Ones
from keras_sbp.utils.pruning.rules.cloning import clone_layer
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    is_kind,
    is_training,
    width,
)


class Theta(Rule):
    """Ones that a layer of noise turns into theta: they vary as the noise does."""

    kinds = (Ones,)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.ones(self.op.units, bool)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.zeros(width(self.node.input_tensors[0]), bool)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        layer = Ones(len(kept[0]), name=self.op.name, dtype=self.op.dtype_policy)
        return [build.live(layer(build.inputs[0]), kept[0])]


class Inner(Rule):
    """A layer that may have noise inside.

    Attributes:
        noisy_class: the layer with the noise.
        units_arguments: the arguments of its call whose units it multiplies by a kernel.
        layer: the layer itself, without the noise.
        given: {name of an argument: tensor}, with the theta.
        settings: the other arguments.
    """

    noisy_class: ClassVar[type[InnerNoise]]
    units_arguments: ClassVar[tuple[str, ...]]
    is_source = True
    varying: Mapping[str, Mask] = {}
    required: Mapping[str, Mask] = {}

    def __init__(self, node: Node):
        super().__init__(node)
        self.layer, self.given, self.settings = inner(node)
        self.positions = {name: _position(node, tensor) for name, tensor in self.given.items()}

    @classmethod
    def matches(cls, node: Node) -> bool:
        return type(node.operation) is cls.noisy_class or is_kind(node.operation, cls.kinds)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        if is_training(node):
            return "called with training=True"
        calls = [inner(call)[2] for call in keras_private.calls(node.operation)]
        same = all(_same_settings(calls[0], other) for other in calls[1:])
        return None if same else "its calls have different arguments"

    def noises(self) -> dict[str, int]:
        """{name: number of units} of the noise that the layer can take; none if it has it."""
        raise NotImplementedError

    def noise_names(self, group: str | None) -> dict[str, str]:
        """{name of a noise: what its layer is named after}; none if the layer takes none.

        Args:
            group: what the noise of its output's units is named after; None if there is none.
        """
        return {name: f"{self.op.name}_{name}" for name in self.noises()}

    def with_noise(self) -> keras.Layer:
        """The layer with noise inside, without its weights yet."""
        return self.noisy_class(
            clone_layer(self.layer), self.settings, name=self.op.name, dtype=self.layer.dtype_policy
        )

    def arguments(self, tensors: Mapping[int, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        """The arguments of its call with other tensors, {id of the old one: new one}."""
        return {name: tensors[id(tensor)] for name, tensor in self.given.items()}

    def resized(self, edit: Callable[[dict[str, Any]], None], dtype: str | None) -> keras.Layer:
        """The layer from its edited config; with a dtype without noise, in that dtype."""
        config = self.layer.get_config()
        edit(config)
        if dtype:
            _set_dtype(config, dtype)
        layer = type(self.layer).from_config(config)
        if dtype or self.layer is self.op:
            return layer
        return self.noisy_class(layer, self.settings, name=self.op.name, dtype=self.op.dtype_policy)

    def norm(self, name: str) -> Any:
        """The normalization of an input that is folded into the layer's kernels."""
        return self.folds.get(self.positions[name])

    def can_fold(self, index: int) -> bool:
        tensor = self.node.input_tensors[index]
        names = [name for name, given in self.given.items() if given is tensor]
        return all(name in self.units_arguments for name in names)

    def masks(self, by_name: dict[str, Mask], other: bool) -> list[Mask]:
        """A mask for each input, from those of some arguments; for other arguments, whether they are needed."""
        found = [np.full(width(tensor), False) for tensor in self.node.input_tensors]
        for index, tensor in enumerate(self.node.input_tensors):
            for name, given in self.given.items():
                if given is tensor:
                    found[index] = found[index] | by_name.get(name, np.full(width(tensor), other))
        return found

    def remember(self, varying: list[Mask], constants: list[Array]) -> None:
        """Keep what is known of the inputs: which units of each vary, and which are constants that are not 0."""
        self.varying = {name: varying[position] for name, position in self.positions.items()}
        self.constants = {name: constants[position] for name, position in self.positions.items()}
        nonzero = {name: c.reshape(-1, c.shape[-1]).any(0) for name, c in self.constants.items()}
        self.required = {name: nonzero[name] & ~self.varying[name] for name in self.units_arguments if name in nonzero}

    def theta(self, name: str, count: int) -> Mask:
        """Which of the units of a noise are live."""
        return self.varying.get(name, np.ones(count, bool)) if name in self.given else np.ones(count, bool)

    def required_units(self, name: str, used: Mask, unknown: bool) -> Mask:
        """Which units of an argument must be there: constants that are not 0; all, for an output that is an unknown
        constant; and at least one."""
        required = used & (self.required.get(name, np.zeros_like(used)) | unknown)
        if not (required | used & self.varying.get(name, np.ones_like(used))).any():
            required[:1] = True
        return required

    def scale_of(self, inputs: list[LiveTensor], name: str, count: int) -> Array:
        """E theta of the units of a noise: (count,), 0 for the dead."""
        if name not in self.given:
            return np.ones(count)
        scale, live = np.zeros(count), inputs[self.positions[name]]
        if live is not None:
            scale[live.units] = live.scale
        return scale


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    """Of a layer and of the layers in it."""
    if "dtype" in config:
        config["dtype"] = dtype
    for value in config.values():
        if isinstance(value, dict) and "config" in value and isinstance(value["config"], dict):
            _set_dtype(value["config"], dtype)


def inner(node: Node) -> tuple[keras.Layer, dict[str, keras.KerasTensor], dict[str, Any]]:
    """(layer, {argument: tensor}, {argument: other value}) of a call of a layer, with noise inside or without."""
    op = node.operation
    args, kwargs = keras_private.arguments(node)
    if isinstance(op, InnerNoise):
        return op.layer, args[0], op.settings
    given = {**inspect.signature(op.call).bind(*args, **kwargs).arguments}
    training = given.pop("training", None)
    states = keras.tree.flatten(given.pop("initial_state", []))
    given |= {f"initial_state{number}": state for number, state in enumerate(states)}
    tensors = {name: value for name, value in given.items() if isinstance(value, keras.KerasTensor)}
    settings = {name: value for name, value in given.items() if name not in tensors and value is not None}
    return op, tensors, settings | ({} if training is None else {"training": training})


def _position(node: Node, tensor: keras.KerasTensor) -> int:
    return next(index for index, other in enumerate(node.input_tensors) if other is tensor)


def _same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = (one.keys() | other.keys()) - {"training"}
    return all(name in one and name in other and np.array_equal(one[name], other[name]) for name in names)
