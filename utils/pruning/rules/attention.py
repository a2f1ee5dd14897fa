"""The rule of attention: whole heads go, and dimensions of queries and keys, and of values, that all heads can lose."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.layers.inner_noise import NoisyAttention, projections
from keras_sbp.utils.pruning.rules.inner import Inner, inner
from keras_sbp.utils.pruning.rules.kernel import positions
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Mask, Rebuilder, filled, is_uniform, width


class Plan(NamedTuple):
    """What is left of an attention layer.

    Attributes:
        heads: [[heads of queries] of each head of keys and values]; all lists are of one length, -1 is a head of zeros.
        groups: the heads of keys and values.
        query_key: (groups, n) dimensions of queries and keys; -1 is one of zeros.
        values: (groups, n) dimensions of the values.
    """

    heads: Array
    groups: Array
    query_key: Array
    values: Array


class Attention(Inner):
    """Multi-head or grouped-query attention."""

    kinds = (layers.MultiHeadAttention, layers.GroupQueryAttention)
    noisy_class = NoisyAttention
    units_arguments = ("query", "key", "value")
    plan: Plan | None = None

    def __init__(self, node: Node):
        super().__init__(node)
        self.weights = {
            name: [np.asarray(weight) for weight in found] for name, found in projections(self.layer).items()
        }
        self.num_heads, self.value_dim, _ = self.weights["output"][0].shape
        _, self.num_groups, self.key_dim = self.weights["key"][0].shape
        self.is_grouped = isinstance(self.layer, layers.GroupQueryAttention)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        layer, given, settings = inner(node)
        config = layer.get_config()
        if any(len(call.outputs) > 1 for call in keras_private.calls(node.operation)):
            return "returns its scores"
        if config.get("use_gate"):
            return "use_gate is set"
        if len(config.get("output_shape") or [1]) > 1:
            return "output_shape has several axes"
        return super().obstacle(node)

    def noises(self) -> dict[str, int]:
        if "heads" in self.given:
            return {}
        dims = {"query_key": self.num_groups * self.key_dim, "values": self.num_groups * self.value_dim}
        return {"heads": self.num_heads, **dims}

    def arguments(self, tensors: Mapping[int, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
        return with_masks(super().arguments(tensors))

    def source(self, name: str) -> str:
        """The argument that a projection reads."""
        return name if name in self.given else "value"

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        self.remember(varying, constants)
        return [self._reached() & self.varying["value"].any()]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        bias, constant = self._bias("output"), self.constants["value"]
        if self.varying["value"].any() or not self._reached().any():
            return [bias]  # of those outputs that no live head leads to
        values = np.einsum("i,igd->gd", constant.reshape(-1, constant.shape[-1])[0], self._kernel("value"))
        values = values + self._bias("value")
        if not is_uniform(constant) or ("heads" in self.given and values.any()):  # theta is not known here
            return [np.where(self._reached(), np.nan, bias)]
        kernel = self.weights["output"][0]
        return [np.einsum("hd,hdo->o", values[self._group_of(np.arange(self.num_heads))], kernel) + bias]

    def _reached(self) -> Mask:
        """Which outputs a live dimension of a live head leads to."""
        heads, _, dims = self._live()
        leads = self.weights["output"][0] != 0
        return (leads & heads[:, None, None] & dims[self._group_of(np.arange(len(heads)))][..., None]).any((0, 1))

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        (units,) = kept
        heads, query_key, values = self._live()
        reaching = (self.weights["output"][0][..., units] != 0).any(-1) & values[self._group_of(np.arange(len(heads)))]
        heads = heads & reaching.any(1)
        heads[0] |= units.any() and not heads.any()  # the layer cannot be without any
        if not self.inference:  # heads go as a whole, if they have keys and values of their own
            heads = np.full_like(heads, heads.any()) if self.is_grouped else heads
            query_key, values = np.ones_like(query_key), np.ones_like(values)
        self.plan = self._plan(heads, query_key, values)
        groups = np.isin(np.arange(self.num_groups), self.plan.groups)
        found = {"heads": heads, "query_key": (query_key & groups[:, None]).ravel()}
        found["values"] = (values & groups[:, None]).ravel()
        for name in ("query", "key", "value"):
            live = heads if name == "query" else groups
            used = (self.weights[name][0] != 0).any(-1)[:, live].any(1)
            used = np.full_like(used, live.any()) if self.norm(self.source(name)) else used
            found[self.source(name)] = used | found.get(self.source(name), False)
        return self.masks(found, other=units.any())

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        used, unknown = self.used_inputs(kept), pinned[0].any() and not self.varying.get("value", np.ones(1)).any()
        whole = {
            name: self.required_units(name, used[self.positions[name]], unknown)
            for name in self.units_arguments
            if name in self.given
        }
        for name in self.noisy_class.noises:
            if name in self.given:
                whole[name] = used[self.positions[name]] & (not self.inference)
        return self.masks(whole, other=kept[0].any())

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (units,), lives = kept, {}
        for name in self.units_arguments:
            if name in self.given:
                position = self.positions[name]
                live = build.select(inputs[position], build.used_units(self, position))
                shared = build.is_shared(self.op) or not build.inference
                lives[name] = build.apply_scale(live, self.op) if shared else live
        tensors = {name: live.tensor for name, live in lives.items()}
        for name, position in self.positions.items():
            if name not in tensors and not (build.inference and name in NoisyAttention.noises):
                tensors[name] = inputs[position].tensor
        tensors = with_masks(tensors)
        if not build.inference:
            return [self._rebuilt_in_training(build, tensors, lives, units)]
        if self.is_grouped:
            _widen(tensors, len(units))
        layer = build.clone_inner(self, lambda config: self._resize(config, len(units)))
        tensor = layer(tensors.pop("query"), tensors.pop("value"), **tensors, **self.settings)
        layer.set_weights(self._smaller(inputs, lives, units, [weight.shape for weight in layer.weights]))
        return [build.live(tensor if tensor.shape[-1] == len(units) else tensor[..., : len(units)], units)]

    def _rebuilt_in_training(self, build: Rebuilder, tensors: dict, lives: dict, units: Indices) -> LiveTensor:
        """With fewer heads, but all of their dimensions."""
        rows = {name: live.units for name, live in lives.items()}
        columns, total = units, width(self.node.outputs[0])
        if self.is_grouped:  # with weights that zeros meet, or whose outputs nothing reads
            count = _widen(tensors, len(units))
            rows["query"], rows["value"] = (_extended(rows[name], count, total) for name in ("query", "value"))
            columns = _extended(units, count, total)
        layer = build.clone_inner(self, lambda config: self._resize(config, len(units)))
        if self.layer is self.op:
            tensor = layer(tensors.pop("query"), tensors.pop("value"), **tensors, **self.settings)
        else:
            tensor = layer(tensors)
        heads = {"query": self.plan.heads.ravel()}
        index = []
        for name in ("query", "key", "value"):
            own = np.ix_(heads.get(name, self.plan.groups), range(self.weights[name][0].shape[-1]))
            index += [(rows[self.source(name)][:, None, None], *(axis[None] for axis in own)), own]
        index += [np.ix_(heads["query"], range(self.value_dim), columns), columns]
        build.set_weights(layer, self.op, index if len(self.op.weights) == len(index) else index[::2])
        return build.live(tensor if len(columns) == len(units) else tensor[..., : len(units)], units)

    def multiply_adds(self, inputs: list[int], outputs: list[int]) -> int:
        query, value = self.given["query"], self.given["value"]
        plan = self.plan or self._plan(*map(np.ones_like, self._live()))
        heads, groups, key_dim, value_dim = (
            plan.heads.size,
            len(plan.groups),
            plan.query_key.shape[1],
            plan.values.shape[1],
        )
        of_query, of_value = (inputs[self.positions[name]] for name in ("query", "value"))
        of_key = inputs[self.positions[self.source("key")]]
        projections_ = positions(query) * heads * (of_query * key_dim + value_dim * outputs[0])
        projections_ += positions(value) * groups * (of_key * key_dim + of_value * value_dim)
        axes = (1,) if self.is_grouped else keras_private.attention_axes(self.layer)
        attended = math.prod(value.shape[axis] or 1 for axis in axes)
        return projections_ + heads * positions(query) * attended * (key_dim + value_dim)

    def _live(self) -> tuple[Mask, Mask, Mask]:
        """Which heads have live noise, and which dimensions of each group: (heads,), (groups, dims) each."""
        query_key = self.theta("query_key", self.num_groups * self.key_dim).reshape(self.num_groups, -1)
        values = self.theta("values", self.num_groups * self.value_dim).reshape(self.num_groups, -1)
        heads = self.theta("heads", self.num_heads) & values.any(1)[self._group_of(np.arange(self.num_heads))]
        return heads, query_key, values

    def _group_of(self, heads: Indices) -> Indices:
        """The head of keys and values that heads of queries read."""
        return heads // (self.num_heads // self.num_groups)

    def _plan(self, heads: Mask, query_key: Mask, values: Mask) -> Plan:
        members = [np.flatnonzero(heads & (self._group_of(np.arange(len(heads))) == g)) for g in range(self.num_groups)]
        groups = np.array([group for group, own in enumerate(members) if len(own)], int)
        counts = [max(1, max((mask[group].sum() for group in groups), default=1)) for mask in (query_key, values)]
        if self.is_grouped or keras.backend.backend() == "jax":  # one number says both; JAX's attention wants it so
            counts = [max(counts)] * 2
        most = max((len(own) for own in members), default=1)
        dims = [[filled(np.flatnonzero(mask[g]), n) for g in groups] for mask, n in zip((query_key, values), counts)]
        return Plan(np.array([filled(members[group], most) for group in groups], int), groups, *map(np.array, dims))

    def _bias(self, name: str) -> Array:
        weights = self.weights[name]
        bias = (
            weights[1]
            if len(weights) > 1
            else np.zeros(weights[0].shape[1:] if name != "output" else weights[0].shape[-1:])
        )
        norm = self.norm(self.source(name)) if name != "output" else None
        return bias if norm is None else bias + norm.offset(weights[0], 0)

    def _kernel(self, name: str) -> Array:
        norm = self.norm(self.source(name))
        return norm.fold(self.weights[name][0], 0) if norm else self.weights[name][0]

    def _resize(self, config: dict[str, Any], outputs: int) -> None:
        plan = self.plan
        config |= {name: None for name in config if name.endswith("_constraint")}
        config["use_bias"] = config["use_bias"] or any(
            self.norm(name) for name in self.units_arguments if name in self.given
        )
        if self.is_grouped:
            config |= {"head_dim": plan.query_key.shape[1], "num_query_heads": plan.heads.size}
            config["num_key_value_heads"] = len(plan.groups)
        else:
            config |= {"key_dim": plan.query_key.shape[1], "value_dim": plan.values.shape[1]}
            config |= {"num_heads": plan.heads.size, "output_shape": [outputs]}

    def _smaller(self, inputs: list[LiveTensor], lives: dict, units: Indices, shapes: list[tuple]) -> list[Array]:
        plan, sizes = (
            self.plan,
            {"query_key": (self.num_groups, self.key_dim), "values": (self.num_groups, self.value_dim)},
        )
        theta = {name: self.scale_of(inputs, name, np.prod(size)).reshape(size) for name, size in sizes.items()}
        one = np.ones((1, 1))
        parts = {
            "query": (plan.heads, plan.query_key, one * np.sqrt(plan.query_key.shape[1] / self.key_dim)),
            "key": (plan.groups[:, None], plan.query_key, theta["query_key"]),
            "value": (plan.groups[:, None], plan.values, theta["values"]),
        }
        kernels, biases = [], []
        for name, (heads, dims, scale) in parts.items():
            live, norm = lives[self.source(name)], self.norm(self.source(name))
            rows = self._kernel(name)[live.units]
            rows = norm.unshifted(rows, 0) if norm else rows
            kernels.append(_pick(rows * live.scale[:, None, None] * scale, heads, dims))
            biases.append(_pick(self._bias(name) * scale, heads, dims))
        output = self.weights["output"][0] * self.scale_of(inputs, "heads", self.num_heads)[:, None, None]
        output = _pick(np.moveaxis(output[..., units], -1, 0), plan.heads, plan.values)
        kernels.append(np.moveaxis(output, 0, -1))
        biases.append(self._bias("output")[units])
        found = [weight for pair in zip(kernels, biases) for weight in pair] if len(shapes) == 8 else kernels
        return [np.pad(w, [(0, size - own) for own, size in zip(w.shape, shape)]) for w, shape in zip(found, shapes)]


def with_masks(tensors: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """The arguments of a call, with the masks that come with its tensors."""
    masks = {
        f"{name}_mask": keras_private.mask_of(tensors[name]) for name in ("query", "key", "value") if name in tensors
    }
    return {name: mask for name, mask in masks.items() if mask is not None} | tensors


def _extended(units: Indices, count: int, total: int) -> Indices:
    """Units and, after them, others up to a number."""
    return np.append(units, np.setdiff1d(np.arange(total), units)[: count - len(units)])


def _pick(weight: Array, heads: Array, dims: Array) -> Array:
    """(..., heads, dims) of a weight: of each group these heads with these dimensions, zeros for -1."""
    padded = np.pad(weight, [(0, 0)] * (weight.ndim - 2) + [(0, 1), (0, 1)])
    picked = padded[..., heads[:, :, None], dims[:, None, :]]
    return picked.reshape(*weight.shape[:-2], -1, dims.shape[-1])


def _widen(tensors: dict[str, keras.KerasTensor], outputs: int) -> int:
    """Append zeros to queries and values up to one width, as Keras wants them of grouped-query attention, which is then
    that of its output, too."""
    count = max(outputs, *(tensors[name].shape[-1] for name in ("query", "value")))
    for name in ("query", "value"):
        missing = [(0, 0)] * (len(tensors[name].shape) - 1) + [(0, count - tensors[name].shape[-1])]
        tensors[name] = keras.ops.pad(tensors[name], missing) if missing[-1][1] else tensors[name]
    return count
