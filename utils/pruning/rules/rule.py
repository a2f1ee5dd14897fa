"""What a rule is, and what rules have in common."""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from keras_sbp import keras_private
from keras_sbp.keras_private import Node

Array = NDArray[Any]
Mask = NDArray[np.bool_]  # (units,), one for each unit of a tensor
Indices = NDArray[np.intp]  # (units,), the units of the original tensor


class LiveTensor(NamedTuple):
    """What is left of a tensor: the new tensor, which units of the old one it has, and the scale each still needs."""

    tensor: keras.KerasTensor
    units: Indices
    scale: Array


class Rebuilder(Protocol):
    """What a rule can ask for while the network is rebuilt (`rebuild.py`).

    Attributes:
        inputs: of the new network.
        new_input: {id of an input of the network: that of the new one}.
        inference: whether the new network is for inference: no noise, stock Keras layers in float32, and constants of
            removed units folded into biases. Otherwise training goes on in it.
    """

    inputs: list[keras.KerasTensor]
    new_input: dict[int, keras.KerasTensor]
    inference: bool

    def live(self, tensor: keras.KerasTensor, units: Indices | None = None, scale: Array | None = None) -> LiveTensor:
        """A `LiveTensor`, by default of all units of the tensor and with no scale left to apply."""

    def select(self, live: LiveTensor, units: Indices) -> LiveTensor:
        """Only these units of it."""

    def apply_scale(self, live: LiveTensor, op: keras.Operation) -> LiveTensor:
        """The same after a Rescaling layer by its scale, if that is not 1; for `op` to read."""

    def clone(self, rule: "Rule", **changes: Any) -> keras.Operation:
        """The new layer for a rule's layer, the same at all its calls, with changes to its config; an operation that is
        no layer is returned as it is."""

    def clone_inner(self, rule: "Rule", edit: Callable[[dict[str, Any]], None]) -> keras.Layer:
        """The new layer for one with noise inside, the same at all its calls, with an edited config; for inference
        without the noise."""

    def new_layer(self, kind: type[keras.Layer], op: keras.Operation, *settings: Any) -> keras.Layer:
        """A layer of another class in place of `op`, under its name."""

    def set_weights(
        self, layer: keras.Operation, op: keras.Operation, index: list, offset: Array | float = 0.0
    ) -> None:
        """Set each weight of a new layer to that of `op` at its index; `offset` is added to a bias."""

    def is_shared(self, op: keras.Operation) -> bool:
        """Whether the network calls `op` more than once."""

    def used_units(self, rule: "Rule", position: int = 0) -> Indices:
        """The live units of one of its inputs that a layer uses."""

    def removed_constant(self, rule: "Rule") -> Array:
        """What removed units, which are constants, add to each live output of a layer: (outputs,)."""

    def folded_norm(self, tensor: keras.KerasTensor) -> keras.Layer | None:
        """The batch normalization that is folded into the layer that outputs a tensor."""

    def is_zero(self, tensor: keras.KerasTensor) -> bool:
        """Whether an original tensor is 0 for every input of the network."""


class Rule(abc.ABC):
    """What one call of a layer of some kind means to units, the indices of a tensor's last axis.

    Attributes:
        kinds: the layer classes that the rule is for; the first is their stock form (see `stock_class`).
        unitwise: whether unit i of the output comes from unit i of every input, and of no other.
        fixed: whether all units that it reads and outputs are needed, so that noise on them would be useless.
        carries_scale: whether a scale on a unit of its input is one on a unit of its output, so that a batch
            normalization after it cancels it.
        passes_padding: whether units appended to its inputs come out as units appended to its output.
        is_source: whether units of its outputs are its own, so that noise on them can remove them.
        averages_positions: whether it computes a mean of positions, the same for each unit.
        regroups: whether the units of its outputs can be in other groups than those of its input, so that noise goes
            after it.
        inference: whether the network without the dead units is for inference.
        folds: {index of an input: the normalization of it that the layer's kernel takes up}.
        node, op: the call in the model's graph, and its layer or operation.
    """

    kinds: ClassVar[tuple[type, ...]] = ()
    unitwise: bool = False
    fixed: ClassVar[bool] = False
    carries_scale: ClassVar[bool] = False
    passes_padding: bool = False
    is_source: bool = False
    averages_positions: bool = False
    regroups: ClassVar[bool] = False
    inference: bool = True

    def __init__(self, node: Node):
        self.node, self.op = node, node.operation
        self.folds: dict[int, Any] = {}

    @classmethod
    def matches(cls, node: Node) -> bool:
        """Whether a call is of a kind that this rule is for, whatever `obstacle` says."""
        return is_kind(node.operation, cls.kinds)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        """Why this call cannot be pruned although its kind can, in a few words; None if it can."""
        return None

    @abc.abstractmethod
    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        """Which units of each output vary with the model's inputs.

        Args:
            varying: which units of each input do.
            constants: (..., units) of each input: the values of the units that do not, and 0 for those that do. An axis
                of positions has length 1 if the values are the same at all of them.
        """

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        """The outputs where they do not vary, as `constants` of `varying_outputs`; NaN where that is not known."""
        return [output[0] for output in self.outputs_of(constants, 1)]

    def outputs_of(self, constants: list[Array], examples: int) -> list[Array]:
        """The outputs, (examples, ...) each, of so many examples with the same `constants` as inputs."""
        ranks = [len(tensor.shape) for tensor in self.node.input_tensors]  # 1: one number for each example
        given = [np.repeat(each[None] if rank > 1 else each, examples, 0) for each, rank in zip(constants, ranks)]
        return [keras.ops.convert_to_numpy(output) for output in keras_private.call(self.node, self.op, given)]

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        """Which units of each output are kept if these are: units that can only go together."""
        return kept

    @abc.abstractmethod
    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        """Which units of each input have an effect on the kept units of the outputs."""

    @abc.abstractmethod
    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        """Which units of each input must be kept even if they are constant.

        Args:
            kept: units of each output.
            pinned: those of them that must be kept even if they are constant.
        """

    @abc.abstractmethod
    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        """Call the layer again, with the kept units only.

        Args:
            build: makes layers and sets their weights.
            inputs: what is left of each input; None for one of which nothing is.
            kept: units of each output.
        Returns:
            What is left of each output.
        """

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int | None:
        """MACs for one example, with these numbers of units of each input and output; None if not known."""
        return 0

    def joined_inputs(self) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        """For a unitwise rule: the inputs whose units are the units of the output, and those that only scale them."""
        count = width(self.node.outputs[0])
        same = [tensor for tensor in self.node.input_tensors if width(tensor) == count]
        return same, [tensor for tensor in self.node.input_tensors if width(tensor) != count]

    def tied(self) -> list[list[keras.KerasTensor]]:
        """For a rule that is not unitwise: sets of its inputs and outputs that have the same units."""
        return []

    def own_outputs(self, readers: Mapping[int, list["Rule"]]) -> list[keras.KerasTensor]:
        """For a source: the outputs that noise has to multiply.

        Args:
            readers: {tensor's id: the rules of the nodes that read it}.
        """
        return self.node.outputs[:1]

    def can_fold(self, index: int) -> bool:
        """Whether the layer's kernel can take up an affine map of the units of this input."""
        return False

    def padded_settings(self, multiple: int) -> dict[str, int]:
        """Changes to the layer's config that round its units up to a multiple with units of zeros; {} if it can't."""
        return {}

    def stock_class(self) -> type:
        """The class of the layer in a network for inference."""
        return next((kind for kind in self.kinds if isinstance(self.op, kind)), type(self.op))


def width(tensor: keras.KerasTensor) -> int:
    """How many units a tensor has; 1 if its last axis is the batch, or of any length."""
    return (tensor.shape[-1] if len(tensor.shape) > 1 else None) or 1


def is_uniform(constant: Array) -> bool:
    """Whether a constant is stored once for all positions."""
    return all(size == 1 for size in constant.shape[:-1])


def at_all_positions(constant: Array, tensor: keras.KerasTensor) -> Array:
    """A constant at each position of a tensor; NaN for what is not 0 if the number of positions is not known."""
    if len(tensor.shape) < 2:
        return constant
    if None in tensor.shape[1:]:
        return np.where(constant == 0, constant, np.nan)
    return np.broadcast_to(constant, tensor.shape[1:])


def is_kind(op: keras.Operation, kinds: type | tuple[type, ...]) -> bool:
    """Whether a layer is of one of these classes itself.

    What a subclass computes is not known, unless it says with which kernel (`sparse_kernel`).
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return type(op) in kinds or (isinstance(op, kinds) and hasattr(op, "sparse_kernel"))


@functools.cache
def is_unitwise(activation: Callable) -> bool:
    """Whether a unit of an activation's output depends on that unit of its input, at that position, only: tried out."""
    if isinstance(activation, keras.Layer) and not activation.built:
        return False  # the numbers would build it for their size
    rng = np.random.default_rng(0)

    def same_for(scale, *shape):
        x, other = (np.float32(scale) * rng.normal(mean, 1, shape).astype(np.float32) for mean in (0, 1))
        stays = np.ix_(*map(range, np.array(shape) // 2))  # of the examples, positions and units
        other[stays] = x[stays]
        outputs = (activation(keras.ops.convert_to_tensor(values)) for values in (x, other))
        before, after = map(keras.ops.convert_to_numpy, outputs)
        return before.shape == x.shape and np.array_equal(before[stays], after[stays], equal_nan=True)

    try:
        return all(same_for(scale, *shape) for scale in (1, 1e-4, 1e3) for shape in ((16, 8), (4, 6, 8)))
    except Exception:  # a user's function may raise anything
        return False


def is_training(node: Node) -> bool:
    """Whether a layer is called with training=True, and so trains or draws random numbers at inference, too."""
    return bool(keras_private.arguments(node)[1].get("training"))


def axis_order(node: Node) -> list[int]:
    """The order in which a call puts the axes of its input, after the batch's, 0; [] if it does something else."""
    if not keras_private.is_keras_op(node.operation, {"Moveaxis", "Permute", "Swapaxes", "Transpose"}):
        return []
    (symbol,) = node.input_tensors
    sizes = np.zeros(range(1, len(symbol.shape) + 1), np.float32)  # each axis is told by its size
    order = [size - 1 for size in keras_private.call(node, node.operation, [sizes])[0].shape]
    return order if order[0] == 0 else []


def index_parts(node: Node) -> list | None:
    """What GetItem takes of each axis that it names, slice(None) for an ellipsis; None if it adds axes or the like."""
    args, kwargs = keras_private.arguments(node)
    key = [*args[1:], *kwargs.values()][0]
    parts, rank = list(key) if isinstance(key, (list, tuple)) else [key], len(node.input_tensors[0].shape)
    for before in [number for number, part in enumerate(parts) if part is Ellipsis]:
        parts[before : before + 1] = [slice(None)] * (rank - len(parts) + 1)
    return parts if all(isinstance(part, (int, slice)) for part in parts) else None


def axis_obstacle(node: Node) -> str | None:
    """Why the last axis of one input is not the units of a layer, as `Rule.obstacle`."""
    op = node.operation
    if len(node.input_tensors) != 1:
        return "called with a mask or another tensor"
    if getattr(op, "data_format", None) == "channels_first":
        return "data_format is channels_first"
    axis = getattr(op, "axis", -1)
    axis = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if axis not in ([-1], [len(node.outputs[0].shape) - 1]):
        return f"axis is {', '.join(map(str, axis))}, not the last"
    return None


def filled(indices: Indices, count: int) -> Indices:
    """Indices and, after them, -1 up to a number."""
    return np.append(indices, np.full(count - len(indices), -1)).astype(int)
