"""The rules of reshapes: of the positions alone, from positions to units, and from units to positions."""

import math
from collections.abc import Iterable

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.renumber import Renumbered
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    is_uniform,
    width,
)
from keras_sbp.utils.pruning.rules.unitwise import Unitwise

NAMES = frozenset(("ExpandDims", "Flatten", "Reshape", "Squeeze"))  # layers, or operations of keras.ops
# Kinds of operations that order the positions in blocks anew, in which they are units or become some.
BLOCKS = frozenset(("DepthToSpace", "SpaceToDepth"))


class Reshape(Unitwise):
    """A reshape of the positions, after which the units are still the last axis."""

    carries_scale = True
    passes_padding = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _is_reshape(node) and width(node.input_tensors[0]) == width(node.outputs[0])

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return None

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,), rank = constants, len(self.node.outputs[0].shape) - 1
        if is_uniform(constant):
            return [constant.reshape((1,) * (rank - 1) + (-1,))]
        return [_reshaped(self.node, constant)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,) = inputs
        return [live._replace(tensor=_rebuilt(self, build, live.tensor, len(live.units)))]

    def commutes_with_scale(self) -> bool:
        return True


class Flatten(Renumbered):
    """Flatten, and any other reshape of positions to units: each unit at each of them becomes a unit of its own."""

    regroups = False

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _is_reshape(node) and width(node.outputs[0]) % width(node.input_tensors[0]) == 0

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        channels_first = getattr(node.operation, "data_format", None) == "channels_first"
        return "data_format is channels_first" if channels_first else None

    @property
    def sources(self) -> list[Indices]:
        return [np.tile(np.arange(width(self.node.input_tensors[0])), self._positions())]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        if is_uniform(constant):
            return [np.tile(constant.ravel(), self._positions())]
        return [_reshaped(self.node, constant)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), count, positions = inputs, width(self.node.input_tensors[0]), self._positions()
        units = (np.arange(positions)[:, None] * count + live.units).ravel()
        tensor = _rebuilt(self, build, live.tensor, len(units))
        return [build.live(tensor, units, np.tile(live.scale, positions))]

    def _positions(self) -> int:
        """How many positions become units."""
        return width(self.node.outputs[0]) // width(self.node.input_tensors[0])


class Blocks(Rule):
    """A reshape of units to positions, as after the dense layer of a decoder or in a pixel shuffle: unit i of the
    output is every n-th of the input, and these are removed together."""

    regroups = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        return _is_reshape(node) and width(node.input_tensors[0]) % width(node.outputs[0]) == 0

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        channels_first = getattr(node.operation, "data_format", None) == "channels_first"
        return "data_format is channels_first" if channels_first else None

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [varying[0].reshape(-1, width(self.node.outputs[0])).any(0)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        if not constant.any():
            return [np.zeros(width(self.node.outputs[0]))]
        return [_reshaped(self.node, constant)]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.tile(kept[0], self._positions())]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), count = kept, width(self.node.outputs[0])
        live = build.select(inputs[0], (np.arange(self._positions())[:, None] * count + units).ravel())
        scales = live.scale.reshape(-1, len(units))
        if (scales != scales[0]).any():
            live = build.apply_scale(live, self.op)
        tensor = _rebuilt(self, build, live.tensor, len(units))
        return [build.live(tensor, units, live.scale[: len(units)])]

    def _positions(self) -> int:
        """How many positions the units become."""
        return width(self.node.input_tensors[0]) // width(self.node.outputs[0])


def examples(nodes: Iterable[Node]) -> dict[int, int]:
    """{id of a node: how many examples it is called on for each of the network's}: more than one after a reshape of
    positions to examples.

    Args:
        nodes: of the network, each after those whose outputs it takes.
    """
    nodes = list(nodes)
    counts = example_counts(nodes, unknown=1.0)
    return {id(node): round(_examples_read(node, counts)) for node in nodes}


def example_counts(nodes: Iterable[Node], unknown: float = math.nan) -> dict[int, float]:
    """{id of a tensor: how many examples it has for each of the network's}.

    Args:
        nodes: as for `examples`.
        unknown: times how many they become where a number of positions that is not known becomes examples.
    """
    counts = {}
    for node in nodes:
        count = _examples_read(node, counts)
        if _is_reshape(node) and not isinstance(node.operation, keras.Layer):
            before, after = node.input_tensors[0].shape[1:], node.outputs[0].shape[1:]
            count *= unknown if None in before else float(np.prod(before) / np.prod(after))
        counts |= {id(tensor): count for tensor in node.outputs}
    return counts


def _examples_read(node: Node, counts: dict[int, float]) -> float:
    return float(np.max([counts[id(tensor)] for tensor in node.input_tensors], initial=1.0))


def _is_reshape(node: Node) -> bool:
    """Whether a call is a reshape from and to known numbers of units. Examples may become positions and vice versa."""
    op = node.operation
    if not keras_private.is_keras_op(op, NAMES | BLOCKS) or len(node.input_tensors) != 1:
        return False
    before, after = node.input_tensors[0].shape, node.outputs[0].shape
    if min(len(before), len(after)) < 2 or None in (before[-1], after[-1]) or before[0] != after[0]:
        return False
    if keras_private.is_keras_op(op, BLOCKS):
        return op.data_format == "channels_last"
    return isinstance(op, layers.Reshape) or None not in after[1:]


def _reshaped(node: Node, constant: Array) -> Array:
    """What a constant becomes; NaN for what is not 0 if the positions of an example are not known."""
    symbol, other = node.input_tensors[0], node.outputs[0]
    known = None not in (*symbol.shape[1:], *other.shape[1:]) and np.prod(symbol.shape[1:]) == np.prod(other.shape[1:])
    if not known:
        return np.full(width(other), np.nan)
    return keras.ops.convert_to_numpy(node.operation(at_all_positions(constant, symbol)[None].astype(np.float32)))[0]


def _rebuilt(rule: Rule, build: Rebuilder, tensor: keras.KerasTensor, count: int) -> keras.KerasTensor:
    """The same reshape of a tensor, to this number of units."""
    op, shape = rule.op, rule.node.outputs[0].shape
    if keras_private.is_keras_op(op, BLOCKS):
        return op(tensor)
    if len(shape) == 2 and isinstance(op, keras.Layer):
        return build.new_layer(layers.Flatten, op, "channels_last")(tensor)
    if isinstance(op, layers.Reshape):
        return build.new_layer(layers.Reshape, op, (*op.target_shape[:-1], count))(tensor)
    return keras.ops.reshape(tensor, (-1, *shape[1:-1], count))
