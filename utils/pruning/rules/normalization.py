"""The rules of normalizations over the units of each position or of groups of units: a dead unit is 0 before them, and
still counts in their mean and variance.

LayerNormalization computes (x - mean) / deviation * gamma + beta. After it a dead unit is not constant, but all that
are 0 share one value, -mean / deviation. Subtracting the mean is linear: if only kernels W read the normalization,

    ((x - mean) / deviation * gamma + beta) W = (x / deviation) V + beta W,
    V = gamma W, with the mean over its inputs subtracted from each of its columns.

So the kernels take up gamma, beta and the mean, and what is left of the normalization keeps a 0 a 0. For n live of N
units, x - s sum(x) has the squared length N variance if s = (1 - sqrt(1 - n / N)) / n: RMSNormalization of that divides
by the deviation of all N units, at the width n, and the kernels undo the shift.

Otherwise the normalization is computed at its old width: a 0 in place of each dead unit before it, and the units that
are used taken from its outputs.
"""

import collections
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    at_all_positions,
    axis_obstacle,
    is_training,
    is_uniform,
    width,
)

# Layers that compute a mean of positions, the same for each unit: constants and affine maps of units pass them.
AVERAGING = (
    *(layers.Dropout, layers.Identity, layers.Permute, layers.RepeatVector, layers.Reshape),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(getattr(layers, f"{name}{rank}D") for name in ("AveragePooling", "GlobalAveragePooling") for rank in (1, 2, 3)),
    *(getattr(layers, f"{name}{rank}D") for name in ("Cropping", "UpSampling") for rank in (1, 2, 3)),
)


class Normalization(Rule):
    """A normalization by statistics of units: of all of them, or of each of some groups.

    Attributes:
        present: which units of the input are not 0.
        required: those of them that do not vary.
    """

    kinds = (layers.GroupNormalization,)
    is_source = True
    required: Mask = np.False_

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return axis_obstacle(node)

    @property
    def groups(self) -> int:
        return getattr(self.op, "groups", 1)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        # What is constant and not 0 has to be there, as the statistics change with it.
        (units,), (constant,) = varying, constants
        self.required = constant.reshape(-1, len(units)).any(0) & ~units
        self.present = units | self.required
        return [np.repeat(units.reshape(self.groups, -1).any(1), len(units) // self.groups)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        (constant,) = constants
        whole = constant if is_uniform(constant) else at_all_positions(constant, self.node.input_tensors[0])
        if np.isnan(whole).any():
            return [np.full(constant.shape[-1], np.nan)]
        return super().constant_outputs([whole.astype(np.float32)])

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        any_kept = kept[0].reshape(self.groups, -1).any(1)
        return [np.repeat(any_kept, len(kept[0]) // self.groups)]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return [self.used_inputs(kept)[0] & self.required]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        live = build.apply_scale(inputs[0], self.op)
        layer = build.clone(self)
        (tensor,) = keras_private.call(self.node, layer, [_at_old_width(live, width(self.node.outputs[0]))])
        build.set_weights(layer, self.op, [...] * len(self.op.weights))
        return [build.select(build.live(tensor), kept[0])]


class Centered(Normalization):
    """Layer normalization.

    Attributes:
        is_folded: whether kernels take up its mean, gamma and beta.
    """

    kinds = (layers.LayerNormalization,)
    is_folded = False

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return "rms_scaling is set" if node.operation.rms_scaling else super().obstacle(node)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        found = super().varying_outputs(varying, constants)
        return [self.present] if self.is_folded and found[0].any() else found

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        if not self.is_folded:
            return super().constant_outputs(constants)
        constant = np.asarray(constants[0], np.float64)
        return [constant / np.sqrt(constant.var(axis=-1, keepdims=True) + self.op.epsilon)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        if not self.is_folded:
            return super().rebuild(build, inputs, kept)
        live = build.apply_scale(build.select(inputs[0], kept[0]), self.op)
        count, total = len(live.units), width(self.node.outputs[0])
        if count == total:
            layer = build.new_layer(layers.LayerNormalization, self.op, -1, self.op.epsilon, False)
            return [build.live(layer(live.tensor), live.units)]
        mean = keras.ops.mean(live.tensor, axis=-1, keepdims=True)
        shifted = live.tensor - mean * float(_shift(count, total) * count)
        return [build.live(root_mean_square(build, self.op, shifted, total, np.ones(count)), live.units)]

    def fold(self, kernel: Array, axis: int) -> Array:
        """The kernel V for a kernel whose inputs are this axis."""
        if self.op.scale:
            kernel = kernel * along(np.asarray(self.op.gamma), kernel, axis)
        return kernel - kernel.mean(axis=axis, keepdims=True)

    def offset(self, kernel: Array, axis: int) -> Array:
        """What beta adds to the sums of a kernel whose inputs are this axis."""
        if not self.op.center:
            return np.zeros(())
        return (kernel * along(np.asarray(self.op.beta), kernel, axis)).sum(axis=axis)

    def unshifted(self, kernel: Array, axis: int) -> Array:
        """The live inputs of a folded kernel, for what `rebuild` leaves of them: x - s sum(x), divided."""
        count, total = kernel.shape[axis], width(self.node.outputs[0])
        if count == total:
            return kernel
        shift = _shift(count, total)
        return kernel + kernel.sum(axis=axis, keepdims=True) * (shift / (1 - shift * count))


class RootMeanSquare(Normalization):
    """Root mean square normalization: a unit that is 0 stays so."""

    kinds = (layers.RMSNormalization,)

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        (found,) = super().varying_outputs(varying, constants)
        return [found & self.present & (np.asarray(self.op.scale) != 0)]

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        if not build.inference:
            return super().rebuild(build, inputs, kept)
        live = build.apply_scale(inputs[0], self.op)
        scale = np.asarray(self.op.scale)[live.units]
        tensor = root_mean_square(build, self.op, live.tensor, width(self.node.outputs[0]), scale)
        live = build.live(tensor, live.units)
        if not np.isin(kept[0], live.units).all():  # zeros that something needs
            live = build.live(_at_old_width(live, width(self.node.outputs[0])))
        return [build.select(live, kept[0])]


def root_mean_square(
    build: Rebuilder, op: keras.Layer, tensor: keras.KerasTensor, total: int, scale: Array
) -> keras.KerasTensor:
    """RMSNormalization in place of `op` of what is left of units, where `total` of them counted.

    The mean of squares of n units is N / n times that of N, n of which are not 0.
    """
    more = total / tensor.shape[-1]
    layer = build.new_layer(layers.RMSNormalization, op, -1, op.epsilon * more)
    output = layer(tensor)
    layer.set_weights([scale * np.sqrt(more)])
    return output


def along(values: Array, kernel: Array, axis: int) -> Array:
    """Values, one for each index of an axis of a kernel, in a shape that broadcasts to the kernel's."""
    shape = [1] * kernel.ndim
    shape[axis] = -1
    return values.reshape(shape)


def connect(found: Sequence[Rule], outputs: Sequence[keras.KerasTensor], fold: bool) -> None:
    """Tell the normalizations of a network what reads them, and kernels what they take up.

    Args:
        found: the rules of the network's nodes.
        outputs: of the network.
        fold: whether kernels take up normalizations.
    """
    readers, calls = collections.defaultdict(list), collections.Counter(id(rule.op) for rule in found)
    for rule in found:
        for index, tensor in enumerate(rule.node.input_tensors):
            readers[id(tensor)].append((rule, index))
    for tensor in outputs:
        readers[id(tensor)].append((None, 0))
    for norm in found:
        if isinstance(norm, Normalization):
            kernels = _kernels_after(norm.node.outputs[0], readers)
            if any(rule is None or calls[id(rule.op)] > 1 for rule, _ in kernels):
                continue
            norm.is_source = not isinstance(norm, (Centered, RootMeanSquare))
            if fold and isinstance(norm, Centered):
                norm.is_folded = True
                for rule, index in kernels:
                    rule.folds[index] = norm


def _kernels_after(tensor: keras.KerasTensor, readers: dict) -> list[tuple[Rule | None, int]]:
    """The rules of kernels that read a tensor, directly or past means of positions, and which of their inputs it is;
    None for anything else that does."""
    found = []
    for rule, index in readers[id(tensor)]:
        if rule is not None and is_averaging(rule) and index == 0:
            found += _kernels_after(rule.node.outputs[0], readers)
        else:
            found.append((rule if rule is not None and rule.can_fold(index) else None, index))
    return found


def is_averaging(rule: Rule) -> bool:
    """Whether a call computes the same mean of positions for each unit."""
    averages = type(rule.op) in AVERAGING and len(rule.node.input_tensors) == 1 and not is_training(rule.node)
    return rule.averages_positions or (rule.unitwise and averages)


def _at_old_width(live: LiveTensor, total: int) -> keras.KerasTensor:
    """A tensor with a 0 in place of each unit that it lost."""
    if len(live.units) == total:
        return live.tensor
    rank = len(live.tensor.shape)
    padded = keras.ops.pad(live.tensor, [(0, 0)] * (rank - 1) + [(0, 1)])
    index = np.full(total, len(live.units))
    index[live.units] = np.arange(len(live.units))
    return keras.ops.take(padded, index.tolist(), axis=-1)


def _shift(count: int, total: int) -> float:
    """s in x - s sum(x), the squared length of which is `total` times the variance of `count` units and zeros."""
    return (1 - np.sqrt(1 - count / total)) / count
