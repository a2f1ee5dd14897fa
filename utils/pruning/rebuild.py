"""The network without its dead units: for inference, or still in training."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.layers import sbp
from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.liveness import Liveness
from keras_sbp.utils.pruning.rules import Array, Indices, LiveTensor, Mask, Rule

# A variable of the smaller network is the variable of the network at this index, plus this offset.
Origin = list[tuple[keras.Variable, keras.Variable, Any, Array | float]]


def shrink(model: keras.Model) -> keras.Model:
    """The smaller network: live units only, theta's mean in the weights, stock Keras layers and ops in float32.

    What a dead unit still adds is a constant, which goes into the biases of the layers that use it. Batch normalization
    right after a dense layer or convolution becomes part of its kernel and bias. Weight constraints are dropped: they
    were meant for other weights. Rescaling and Normalization stay layers: fine-tuning needs weights of the usual size.

    Layers without a pruning rule keep all their units; `unprunable(model)` lists them with the reason.

    Args:
        model: built, functional or Sequential. A noise layer is any layer with a method `multiplier()`, by which its
            units are multiplied at inference, (units,). A Dense or Conv2D with a method `sparse_kernel()` computes with
            that kernel at inference.
    Returns:
        A Keras model that computes what `model` computes at inference, up to rounding; a constant if no unit is live.
        If the model's class has its own train_step or the like, the result is of that class. Warns if no unit is dead.
    Raises:
        ValueError: the model has no graph, is quantized, or cannot be copied.
    """
    graph.check_class(model)
    model = graph.flatten_nested(model)
    noises = [node.operation for node in graph.nodes(model) if rules.is_noise(node.operation)]
    multipliers = {layer.name: keras.ops.convert_to_numpy(theta) for layer, theta in sbp.multipliers(noises).items()}
    if any(isinstance(layer, sbp.SBP) for layer in noises) and all(theta.all() for theta in multipliers.values()):
        warnings.warn(
            f"no unit of {model.name} is dead, so all stay: units die in training, if kl_weight is about 1 / N for N "
            "examples and the noise's learning rate 10 to 100 times that of the weights",
            stacklevel=2,
        )
    return _Rebuilder(model, Liveness(model, multipliers)).model


def remove_units(model: keras.Model, dead: dict[str, Mask]) -> tuple[keras.Model, Origin]:
    """The network in training without its dead units, with its noise layers and in its own precision.

    Units that no live unit uses are removed as well. Every noise layer keeps at least one unit.

    Args:
        model: functional or Sequential, without nested models.
        dead: {noise layer's name: (units,) bool}.
    Returns:
        smaller: the model, with initial weights.
        origin: [(variable of smaller, variable of model, index, offset)]: the first is to be the second[index] plus the
            offset, what dead units added.
    """
    multipliers = {name: ~units if not units.all() else np.arange(len(units)) == 0 for name, units in dead.items()}
    liveness = Liveness(model, multipliers, inference=False)
    while multipliers and liveness.lacks_noise():
        # The live units of two layers may not be connected: then all of the later layer's are kept.
        multipliers.popitem()
        liveness = Liveness(model, multipliers, inference=False)
    rebuilt = _Rebuilder(model, liveness)
    return rebuilt.model, rebuilt.origin


class _Rebuilder:
    """A model built again with its kept units, node by node, as the rules say: see `rules.Rebuilder`.

    Args:
        model: functional or Sequential, without nested models.
        liveness: of the model.
    Attributes:
        model: the new one.
        origin: see `remove_units`.
    """

    def __init__(self, model: keras.Model, liveness: Liveness):
        self.inputs, self.liveness, self.inference, self.origin = (
            graph.new_inputs(model),
            liveness,
            liveness.inference,
            [],
        )
        self.new_input = dict(zip(map(id, model.inputs), self.inputs))
        self.norms = _folded_norms(model, liveness) if self.inference else {}
        self.layers, self.names, self.reused = {}, {rule.op.name for rule in liveness.rules}, set()
        self.masks = {}
        lives = {}
        for rule in liveness.rules:
            outputs = rule.node.outputs
            if isinstance(rule, rules.Input):
                rebuilt = rule.rebuild(self, [], [])
            elif not any(len(liveness.kept_units(tensor)) for tensor in outputs):
                continue
            elif liveness.is_constant(rule.node):
                rebuilt = [self._constant(tensor, rule.op) for tensor in outputs]
            else:
                inputs = [lives.get(id(tensor)) for tensor in rule.node.input_tensors]
                rebuilt = rule.rebuild(self, inputs, [liveness.kept_units(tensor) for tensor in outputs])
            self._carry_masks(outputs, rebuilt)
            lives |= zip(map(id, outputs), rebuilt)
        producers = [keras_private.producer(tensor).operation for tensor in model.outputs]
        outputs = [self.apply_scale(lives[id(x)], op).tensor for x, op in zip(model.outputs, producers)]
        self.model = graph.with_outputs(model, outputs, self.inputs)

    def live(self, tensor: keras.KerasTensor, units: Indices | None = None, scale: Array | None = None) -> LiveTensor:
        units = np.arange(rules.width(tensor)) if units is None else units
        return LiveTensor(tensor, units, np.ones(len(units)) if scale is None else scale)

    def select(self, live: LiveTensor, units: Indices) -> LiveTensor:
        index = np.flatnonzero(np.isin(live.units, units))
        if len(index) == len(live.units):
            return live
        tensor = keras.ops.take(live.tensor, index.tolist(), axis=-1)
        if (mask := keras_private.mask_of(live.tensor)) is not None:
            keras_private.set_mask(tensor, mask)
        return LiveTensor(tensor, live.units[index], live.scale[index])

    def apply_scale(self, live: LiveTensor, op: keras.Operation) -> LiveTensor:
        if (live.scale == 1).all():
            return live
        layer = self.new_layer(keras.layers.Rescaling, op, live.scale.tolist(), suffix="scale")
        return self.live(layer(live.tensor), live.units)

    def clone(self, rule: Rule, **changes: Any) -> keras.Operation:
        op = rule.op
        if not isinstance(op, keras.Layer):
            return op
        if id(op) not in self.layers:
            kind = None
            if self.inference:
                kind = rule.stock_class()
                if keras.backend.is_float_dtype(op.compute_dtype):
                    changes["dtype"] = "float32"
            self.layers[id(op)] = rules.clone_layer(op, kind, **changes)
        return self.layers[id(op)]

    def clone_inner(self, rule: Rule, edit: Callable[[dict[str, Any]], None]) -> keras.Layer:
        if id(rule.op) not in self.layers:
            self.layers[id(rule.op)] = rule.resized(edit, "float32" if self.inference else None)
        return self.layers[id(rule.op)]

    def new_layer(
        self, kind: type[keras.Layer], op: keras.Operation, *settings: Any, suffix: str | None = None
    ) -> keras.Layer:
        dtype = "float32" if self.inference else getattr(op, "dtype_policy", None)
        return kind(*settings, name=self._name(op, suffix), dtype=dtype)

    def set_weights(
        self, layer: keras.Operation, op: keras.Operation, index: list, offset: Array | float = 0.0
    ) -> None:
        if not index:
            return
        if self.inference:
            rules.set_weights(layer, [np.asarray(weight)[own] for weight, own in zip(op.weights, index)])
        elif not any(variable is new for new, *_ in self.origin for variable in layer.weights):
            bias = getattr(layer, "bias", None)
            offsets = [offset if variable is bias else 0.0 for variable in layer.weights]
            self.origin += zip(layer.weights, op.weights, index, offsets)

    def is_shared(self, op: keras.Operation) -> bool:
        return len(self.liveness.call_sites[id(op)]) > 1

    def used_units(self, rule: Rule, position: int = 0) -> Indices:
        return self.liveness.used_units(rule, position)

    def removed_constant(self, rule: Rule) -> Array:
        return self.liveness.removed_constants(rule)[0]

    def folded_norm(self, tensor: keras.KerasTensor) -> keras.Layer | None:
        return self.norms.get(id(tensor))

    def is_zero(self, tensor: keras.KerasTensor) -> bool:
        return self.liveness.is_zero(tensor)

    def _carry_masks(self, outputs: list[keras.KerasTensor], rebuilt: list[LiveTensor]) -> None:
        """Let masks that come with the old tensors come with the new ones, also past operations that drop them."""
        for old, new in zip(outputs, rebuilt):
            mask = keras_private.mask_of(old)
            if mask is None or new is None:
                continue
            found = keras_private.mask_of(new.tensor)
            if found is not None:
                self.masks[id(mask)] = found
            elif id(mask) in self.masks:
                keras_private.set_mask(new.tensor, self.masks[id(mask)])

    def _name(self, op: keras.Operation, suffix: str | None) -> str:
        """The name of `op`, or with a suffix that of a layer beside it: one that no other layer has, old or new."""
        wanted = f"{op.name}_{suffix}" if suffix else op.name
        names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
        free = next(n for n in names if n not in self.names or (n == op.name and n not in self.reused))
        self.reused.add(free)
        self.names.add(free)
        return free

    def _constant(self, tensor: keras.KerasTensor, op: keras.Operation) -> LiveTensor:
        """The kept units of a tensor that does not vary with the model's input."""
        units = self.liveness.kept_units(tensor)
        value = self.liveness.constants[id(tensor)][..., units]
        # A pixel as 0, also if it is NaN, plus the value. Not the bias of a layer without inputs: oneDNN has no product
        # with none.
        pixels = next((x for x in self.inputs if x.dtype != "string"), None)
        if pixels is None:
            raise ValueError(f"no unit is left that {op.name} reads, and the inputs are text: use a smaller kl_weight")
        x = self.new_layer(keras.layers.Flatten, op, "channels_last", suffix="pixels")(pixels)
        x = keras.ops.zeros_like(keras.ops.take(x, [0] * value.size, axis=-1))
        x = self.new_layer(keras.layers.Rescaling, op, 0.0, value.ravel().tolist(), suffix="constant")(x)
        if len(tensor.shape) < 2:
            return self.live(x[:, 0], units)
        if value.ndim > 1:
            x = self.new_layer(keras.layers.Reshape, op, value.shape, suffix="shape")(x)
        repeats = [size // own for size, own in zip(tensor.shape[1:-1], value.shape)]
        if any(times > 1 for times in repeats):
            x = keras.ops.tile(x, (1, *repeats, 1))
        return self.live(x, units)


def _folded_norms(model: keras.Model, liveness: Liveness) -> dict[int, keras.Layer]:
    """{id of a tensor: the batch normalization that alone reads it, after a dense layer or convolution without
    activation}."""
    once = [sites[0] for sites in liveness.call_sites.values() if len(sites) == 1]
    readers = [id(tensor) for rule in liveness.rules for tensor in rule.node.input_tensors]
    readers += map(id, model.outputs)
    linear = {
        id(rule.node.outputs[0])
        for rule in once
        if isinstance(rule, rules.Kernel) and rule.op.activation is keras.activations.linear
    }
    norms = {id(rule.node.input_tensors[0]): rule.op for rule in once if isinstance(rule, rules.BatchNorm)}
    return {tensor: norm for tensor, norm in norms.items() if tensor in linear and readers.count(tensor) == 1}
