"""The rule of recurrent layers: noise multiplies their state whenever the next step or another layer reads it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.layers.inner_noise import NoisyRecurrent, with_initial_state
from keras_sbp.utils.pruning.rules.inner import Inner, inner
from keras_sbp.utils.pruning.rules.kernel import positions
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    filled,
    is_unitwise,
    width,
)

CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
IMAGES = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
SEQUENCES = (layers.LSTM, layers.GRU, layers.SimpleRNN, *IMAGES)


class Cell(NamedTuple):
    """A cell and which of the layer's outputs are its units: those from `start`."""

    cell: keras.Layer
    start: int

    @property
    def count(self) -> int:
        return self.cell.recurrent_kernel.shape[-2]

    def own(self, units: Array) -> Array:
        return units[self.start : self.start + self.count]

    def indices(self, units: Indices) -> Indices:
        """Those of the layer's units that are the cell's, counted from its first."""
        return units[np.isin(units, np.arange(self.count) + self.start)] - self.start

    def gates(self, kernel: Array) -> Array:
        """A kernel or bias with its last axis as (gates, units)."""
        return kernel.reshape(*kernel.shape[:-1], -1, self.count)


class Recurrent(Inner):
    """A recurrent layer, or two in Bidirectional."""

    kinds = (*SEQUENCES, layers.RNN, layers.Bidirectional)
    noisy_class = NoisyRecurrent
    units_arguments = ("sequences",)
    plan: list[int] | None = None

    def __init__(self, node: Node):
        super().__init__(node)
        found = [layer.cell for layer in directions(self.layer)]
        self.is_concatenation = getattr(self.layer, "merge_mode", None) == "concat"
        count = found[0].recurrent_kernel.shape[-2] * self.is_concatenation
        self.cells = [Cell(cell, number * count) for number, cell in enumerate(found)]

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        layer, given, settings = inner(node)
        states = _states(given)
        if isinstance(layer, layers.Bidirectional) and (states or len(node.outputs) > 1):
            return "returns both directions, or takes or returns their states"
        if unknown := set(given) - {"sequences", "mask", "units", *states} | set(settings) - {"mask", "training"}:
            return f"called with {', '.join(sorted(unknown))} that is no tensor"
        if states and len({len(call.input_tensors) for call in keras_private.calls(node.operation)}) > 1:
            return "called with an initial state, and without one"
        for each in directions(layer):
            cell = getattr(each, "cell", None)
            if not (type(each) in SEQUENCES or (type(each) is layers.RNN and type(cell) in CELLS)):
                return f"no rule for {type(each if cell is None else cell).__name__} in it"
            if not all(is_unitwise(getattr(cell, name, keras.activations.linear)) for name in ACTIVATIONS):
                return "its activation mixes units"
            if getattr(each, "data_format", None) == "channels_first":
                return "data_format is channels_first"
        return super().obstacle(node)

    def tied(self) -> list[list[keras.KerasTensor]]:
        return [[*(self.given[name] for name in _states(self.given)), *self.node.outputs]]

    def own_outputs(self, readers: Mapping[int, list[Rule]]) -> list[keras.KerasTensor]:
        # Noise multiplies a state when the next step reads it, also in a layer that starts from it.
        return [x for x in self.node.outputs if not all(_starts_from(x, rule) for rule in readers[id(x)])]

    def noises(self) -> dict[str, int]:
        return {} if "units" in self.given else {"units": width(self.node.outputs[0])}

    def noise_names(self, group: str | None) -> dict[str, str]:
        # That of its output: it is one unit to those that read it now and at the next step.
        return {name: group for name in self.noises() if group}

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        self.remember(varying, constants)
        is_varying = any(self.varying[name].any() for name in ("sequences", *_states(self.given)))
        return [np.full(width(output), is_varying) for output in self.node.outputs]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [np.full(width(output), np.nan) for output in self.node.outputs]

    def coupled_outputs(self, kept: list[Mask]) -> list[Mask]:
        """With those units whose state they depend on."""
        units, live = np.logical_or.reduce(kept), self.theta("units", width(self.node.outputs[0]))
        if self.is_concatenation and not self.inference:  # there, both directions have the same units
            units = np.tile(units.reshape(2, -1).any(0), 2)
        while True:
            more = units.copy()
            for cell in self.cells:
                leads = (cell.gates(np.asarray(cell.cell.recurrent_kernel)) != 0)[..., cell.own(units)]
                read = leads.any(axis=(-1, -2)).reshape(-1, cell.count).any(0) & cell.own(live)
                cell.own(more)[:] |= read
            if (more == units).all():
                return [units] * len(kept)
            units = more

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        units, *_ = self.coupled_outputs(kept)
        self.plan = self._counts(units)
        used = np.zeros(width(self.given["sequences"]), bool)
        for cell in self.cells:
            leads = (cell.gates(np.asarray(cell.cell.kernel)) != 0)[..., cell.own(units)]
            used |= leads.any(axis=(-1, -2)).reshape(-1, len(used)).any(0)
        if self.norm("sequences"):
            used[:] = units.any()
        states = dict.fromkeys(_states(self.given), units)
        return self.masks({"sequences": used, "units": units, **states}, other=units.any())

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        unknown = any(map(np.any, pinned)) and not self.varying.get("sequences", np.ones(1)).any()
        units, *_ = self.coupled_outputs(kept)
        used = self.used_inputs(kept)[self.positions["sequences"]]
        required = self.required_units("sequences", used, unknown) & units.any()
        theta = np.zeros_like(units) if self.inference else units
        states = {name: self._required_state(name, units) for name in _states(self.given)}
        return self.masks({"sequences": required, "units": theta, **states}, other=units.any())

    def _required_state(self, name: str, units: Mask) -> Mask:
        """Which units of an initial state must be there: constants that are not 0, and at least one."""
        if name not in self.varying:
            return np.zeros_like(units)
        varying, constant = self.varying[name], self.constants[name]
        required = units & ~varying & (constant != 0).reshape(-1, len(units)).any(0)
        if not (required | units & varying).any():
            required[np.flatnonzero(units)[:1]] = True
        return required

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        units, live = kept[0], build.select(inputs[self.positions["sequences"]], self.used_indices(build))
        if build.is_shared(self.op) or not build.inference:
            live = build.apply_scale(live, self.op)
        layer = build.clone_inner(self, lambda config: _resized(config, self.plan, bool(self.norm("sequences"))))
        tensors = {name: inputs[position].tensor for name, position in self.positions.items()}
        tensors["sequences"] = live.tensor
        for name in _states(self.given):
            state = build.apply_scale(build.select(inputs[self.positions[name]], units), self.op)
            tensors[name] = _with_zeros(state, units)
        if not build.inference:
            has_noise = self.layer is not self.op
            outputs = layer(tensors) if has_noise else layer(**with_initial_state(tensors), **self.settings)
            build.set_weights(layer, self.op, self._indices(live.units, units))
            return [build.live(tensor, units) for tensor in keras.tree.flatten(outputs)]
        tensors.pop("units", None)
        outputs = layer(**with_initial_state(tensors), **self.settings)
        theta = self.scale_of(inputs, "units", width(self.node.outputs[0]))
        weights = [weight for cell in self.cells for weight in self._smaller(cell, live, units, theta)]
        layer.set_weights(weights)
        found = [filled(cell.indices(units) + cell.start, count) for cell, count in zip(self.cells, self.plan)]
        of_layer = np.concatenate(found) if self.is_concatenation else found[0]
        return [build.select(build.live(tensor, of_layer), units) for tensor in keras.tree.flatten(outputs)]

    def _counts(self, units: Mask) -> list[int]:
        """How many units each cell has left: both of a concatenation as many, as Keras takes it for granted."""
        counts = [int(cell.own(units).sum()) for cell in self.cells]
        return [max(counts)] * len(counts)

    def used_indices(self, build: Rebuilder) -> Indices:
        return build.used_units(self, self.positions["sequences"])

    def _smaller(self, cell: Cell, live: LiveTensor, units: Indices, theta: Array) -> list[Array]:
        """The weights of a cell with these units, and with these of its inputs."""
        own = filled(cell.indices(units), max(self.plan))
        kernel, recurrent = np.asarray(cell.cell.kernel), np.asarray(cell.cell.recurrent_kernel)
        offset, norm = None, self.norm("sequences")
        if norm:
            offset = _taken(cell.gates(norm.offset(kernel, -2) * np.ones(kernel.shape[-1])), own).reshape(-1)
            kernel = norm.fold(kernel, -2)
        kernel = _taken(cell.gates(kernel[..., live.units, :]), own)
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
        if norm:
            kernel = norm.unshifted(kernel, -2)
        recurrent = _taken(cell.gates(recurrent * cell.own(theta)[:, None]), own)
        recurrent = np.moveaxis(_taken(np.moveaxis(recurrent, -3, -1), own), -1, -3)
        found = [kernel * live.scale[:, None], recurrent.reshape(*recurrent.shape[:-2], -1)]
        if cell.cell.use_bias:
            bias = _taken(cell.gates(np.asarray(cell.cell.bias)), own)
            found.append(bias.reshape(*bias.shape[:-2], -1))
        elif norm:
            rows = (2,) if getattr(cell.cell, "reset_after", False) else ()
            found.append(np.zeros((*rows, len(offset))))
        if norm:  # the first of a GRU's two biases is that of the inputs
            found[-1] = found[-1] + (offset if found[-1].ndim == 1 else np.stack([offset, np.zeros_like(offset)]))
        return found

    def _indices(self, inputs: Indices, units: Indices) -> list[Any]:
        """The index of what stays in each weight of the layers."""
        found = []
        for cell in self.cells:
            own = cell.indices(units)
            gates = cell.cell.kernel.shape[-1] // cell.count
            columns = (np.arange(gates)[:, None] * cell.count + own).ravel()
            before = [range(size) for size in cell.cell.kernel.shape[:-2]]
            found += [np.ix_(*before, inputs, columns), np.ix_(*before, own, columns)]
            found += [(..., columns)] if cell.cell.use_bias else []
        return found

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        total, sequence = 0, self.given["sequences"]
        plan = self.plan or [cell.count for cell in self.cells]
        for cell, units in zip(self.cells, plan):
            kernel = cell.cell.kernel
            gates, field = kernel.shape[-1] // cell.count, int(np.prod(kernel.shape[:-2]))
            total += gates * field * units * (inputs[self.positions["sequences"]] + units)
        each = positions(self.node.outputs[0]) if isinstance(self.layer, IMAGES) else 1
        if isinstance(self.layer, IMAGES) and self.layer.return_sequences:
            each //= sequence.shape[1] or 1
        return (sequence.shape[1] or 1) * each * total

    def can_fold(self, index: int) -> bool:
        return super().can_fold(index) and not isinstance(self.layer, IMAGES)


def _states(given: Mapping[str, Any]) -> list[str]:
    """The names of the initial states in a call."""
    return sorted(name for name in given if name.startswith("initial_state"))


def _starts_from(tensor: keras.KerasTensor, rule: Rule) -> bool:
    """Whether a node reads a tensor as an initial state only."""
    names = [name for name, given in getattr(rule, "given", {}).items() if given is tensor]
    return isinstance(rule, Recurrent) and names == _states(names)


def _with_zeros(live: LiveTensor, units: Indices) -> keras.KerasTensor:
    """A tensor of all these units, with zeros for those that are not there."""
    if missing := len(units) - len(live.units):
        padded = keras.ops.pad(live.tensor, [(0, 0)] * (len(live.tensor.shape) - 1) + [(0, missing)])
        order = np.argsort(np.concatenate([live.units, np.setdiff1d(units, live.units)]))
        return keras.ops.take(padded, order.tolist(), axis=-1)
    return live.tensor


def _taken(weight: Array, indices: Indices) -> Array:
    """These of the last axis, and zeros for -1."""
    return np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, 1)])[..., indices]


ACTIVATIONS = ("activation", "recurrent_activation")


def directions(layer: keras.Layer) -> list[keras.Layer]:
    """The layer itself, or both that Bidirectional has."""
    return [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]


def _resized(config: dict[str, Any], counts: list[int], needs_bias: bool) -> None:
    """Set the numbers of units in the config of a recurrent layer, and drop constraints on its weights."""
    inside = [config[name] for name in ("layer", "backward_layer", "cell") if name in config]
    for one in inside:
        one.pop("build_config", None)  # of the old size
    for number, one in enumerate([one["config"] for one in inside] or [config]):
        if "cell" in one:
            _resized(one, counts[number:], needs_bias)
            continue
        one |= {name: counts[number] for name in ("units", "filters") if name in one}
        one |= {name: None for name in one if name.endswith("_constraint")}
        one["use_bias"] = one["use_bias"] or needs_bias
