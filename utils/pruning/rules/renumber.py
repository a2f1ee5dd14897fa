"""The rules of operations that take units, or put them under other numbers: keras.ops.take, slices, split, pad."""

import functools
from typing import ClassVar

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Mask, Rebuilder, Rule, index_parts, width


class Renumbered(Rule):
    """An operation each unit of whose outputs is a unit of its input, or 0."""

    names: ClassVar[frozenset[str]]
    carries_scale = True
    regroups = True

    @classmethod
    def matches(cls, node: Node) -> bool:
        rank = len(node.outputs[0].shape)
        known = keras_private.is_keras_op(node.operation, cls.names) and len(node.input_tensors) == 1
        return known and rank > 1 and None not in (node.input_tensors[0].shape[-1], node.outputs[0].shape[-1])

    @functools.cached_property
    def sources(self) -> list[Indices]:
        """For each unit of each output, the unit of the input that it is; -1 if it is 0."""
        raise NotImplementedError

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        return [np.append(varying[0], False)[sources] for sources in self.sources]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        with_zero = np.concatenate([constants[0], np.zeros_like(constants[0][..., :1])], axis=-1)
        return [with_zero[..., sources] for sources in self.sources]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        used = np.zeros(width(self.node.input_tensors[0]) + 1, bool)
        for sources, units in zip(self.sources, kept):
            used[sources[units]] = True
        return [used[:-1]]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(pinned)


class Take(Renumbered):
    """keras.ops.take of units by their indices, and a slice of them."""

    names = frozenset(("GetItem", "Take"))

    @classmethod
    def matches(cls, node: Node) -> bool:
        op = node.operation
        if not super().matches(node):
            return False
        rank = len(node.input_tensors[0].shape)
        if keras_private.is_keras_op(op, {"GetItem"}):
            *before, last = index_parts(node) or [None]
            return len(before) == rank - 1 and isinstance(last, slice) and all(part == slice(None) for part in before)
        return op.axis in (-1, rank - 1) and np.ndim(keras_private.arguments(node)[0][1]) == 1

    @functools.cached_property
    def indices(self) -> Indices:
        """Of the units that it takes, counted from the first."""
        count = width(self.node.input_tensors[0])
        if keras_private.is_keras_op(self.op, {"GetItem"}):
            return np.arange(count)[index_parts(self.node)[-1]]
        return np.asarray(keras_private.arguments(self.node)[0][1], int) % count

    @property
    def sources(self) -> list[Indices]:
        return [self.indices]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), (units,) = inputs, kept
        index = np.searchsorted(live.units, self.indices[units])
        if np.array_equal(index, np.arange(len(live.units))):
            return [build.live(live.tensor, units, live.scale)]
        tensor = keras.ops.take(live.tensor, index.tolist(), axis=-1)
        return [build.live(tensor, units, live.scale[index])]


class Split(Renumbered):
    """keras.ops.split of the units."""

    names = frozenset(("Split",))

    @classmethod
    def matches(cls, node: Node) -> bool:
        return super().matches(node) and node.operation.axis in (-1, len(node.outputs[0].shape) - 1)

    @functools.cached_property
    def sources(self) -> list[Indices]:
        ends = np.cumsum([width(tensor) for tensor in self.node.outputs])
        return np.split(np.arange(ends[-1]), ends[:-1])

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live = build.select(inputs[0], np.concatenate([own[units] for own, units in zip(self.sources, kept)]))
        sizes = [len(units) for units in kept if len(units)]
        ends = np.cumsum(sizes)[:-1]
        parts = iter([live.tensor] if len(sizes) == 1 else keras.ops.split(live.tensor, ends.tolist(), axis=-1))
        scales = iter(np.split(live.scale, ends))
        return [build.live(next(parts), units, next(scales)) if len(units) else None for units in kept]


class Pad(Renumbered):
    """keras.ops.pad with zeros before and after the units."""

    names = frozenset(("Pad",))
    regroups = False  # what it is added to may be a shortcut of the input

    @classmethod
    def matches(cls, node: Node) -> bool:
        op = node.operation
        if not super().matches(node) or op.mode != "constant" or len(op.pad_width) == 1:
            return False
        args, kwargs = keras_private.arguments(node)
        value = [*args[1:], *kwargs.values()]
        return value in ([], [None], [0]) and all(tuple(width) == (0, 0) for width in op.pad_width[:-1])

    @functools.cached_property
    def sources(self) -> list[Indices]:
        return [np.pad(np.arange(width(self.node.input_tensors[0])), self.op.pad_width[-1], constant_values=-1)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (sources,), (units,), (before, _) = self.sources, kept, self.op.pad_width[-1]
        own = sources[units][sources[units] >= 0]
        live = build.select(inputs[0], own)
        first = int((units < before).sum())
        sizes = (first, len(units) - len(own) - first)
        if not any(sizes):
            return [build.live(live.tensor, units, live.scale)]
        tensor = keras.ops.pad(live.tensor, [(0, 0)] * (len(live.tensor.shape) - 1) + [sizes])
        return [build.live(tensor, units, np.pad(live.scale, sizes, constant_values=1.0))]
