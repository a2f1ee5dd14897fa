"""The network with the living units only: plain, or still in training."""

import itertools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.pruning import graph, rules
from keras_sbp.utils.pruning.liveness import Liveness

# {what a layer becomes in a plain network: what it was}.
STOCK = {
    keras.layers.Dense: keras.layers.Dense,
    keras.layers.Conv2D: keras.layers.Conv2D,
    keras.layers.BatchNormalization: rules.Normalisation.KINDS,
}


def shrink(model):
    """The smaller network: living units only, theta's mean in the weights, stock Keras layers and ops in float32.

    What a dead unit still adds is a constant: it moves into the biases of those that read it. Batch normalisation right
    after a dense or convolution layer becomes part of that layer's kernel and bias. Constraints on these go, as they
    were meant for others.

    Args:
        model: a built Keras model, Sequential or functional. A noise layer in it is any layer with a method
            `multiplier()`: what it multiplies its units by at test time, (units,). A Dense or Conv2D with a method
            `sparse_kernel()` computes with that kernel at test time. A layer of a kind without a rule (utils/pruning/
            rules) keeps all its units and those that it reads.
    Returns:
        A Keras model that computes what `model` computes at test time, up to rounding. If no unit lives, a constant.
    Raises:
        ValueError: the model is a subclass of keras.Model without a graph.
    """
    model = graph.flatten_nested(model)
    noises = [node.operation for node in graph.nodes(model) if rules.Noise.fits(node)]
    multipliers = {layer.name: np.asarray(layer.multiplier()) for layer in noises}
    return Rebuild(model, Liveness(model, multipliers)).model


def remove_units(model, dead):
    """The network in training without its dead units: noise layers and all, in the model's own precision.

    A unit that nothing living reads goes with them. Every noise layer keeps a unit at least.

    Args:
        model: as for `shrink`.
        dead: {noise layer's name: (units,) bool}.
    Returns:
        smaller: the model, its weights still at their start.
        origin: a list of (variable of smaller, variable of model, index, offset): the one is to be the other[index]
            plus the offset, what dead units added.
    """
    multipliers = {name: ~units if not units.all() else np.arange(len(units)) == 0 for name, units in dead.items()}
    living = Liveness(model, multipliers, plain=False)
    while multipliers and living.lacks_noise():
        # The living units of two layers may miss one another: then all of the later layer's stay.
        multipliers.popitem()
        living = Liveness(model, multipliers, plain=False)
    rebuilt = Rebuild(model, living)
    return rebuilt.model, rebuilt.origin


class Part(NamedTuple):
    """What is left of a tensor: the new tensor, the old units in it, and the factor that each still needs."""

    tensor: keras.KerasTensor
    units: np.ndarray
    factor: np.ndarray


class Rebuild:
    """A model made anew with its living units, node by node, as the rules say.

    Args:
        model: as for `shrink`.
        living: its `Liveness`. If that is plain, stock layers with their weights and no noise; else as `remove_units` says.
    Attributes:
        model: the new one.
        origin: of `remove_units`.
        norms: {id of a weighted layer's output: the batch normalisation that becomes part of the layer}.
    """

    def __init__(self, model, living):
        self.old, self.living, self.plain, self.origin = model, living, living.plain, []
        self.norms = _norms(model, living) if living.plain else {}
        self.layers, self.names, self.made = {}, {rule.op.name for rule in living.rules}, set()
        parts = {}
        for rule in living.rules:
            outputs = rule.node.outputs
            if isinstance(rule, rules.Input):
                made = [self.part(tensor) for tensor in outputs]
            elif not any(len(living.kept(tensor)) for tensor in outputs):
                continue
            elif living.is_constant(rule.node):
                made = [self._constant(tensor, rule.op) for tensor in outputs]
            else:
                inputs = [parts.get(id(tensor)) for tensor in rule.node.input_tensors]
                made = rule.rebuild(self, inputs, [living.kept(tensor) for tensor in outputs])
            parts |= zip(map(id, outputs), made)
        outputs = [self.rescaled(parts[id(x)], x._keras_history.operation).tensor for x in model.outputs]
        self.model = graph.rebuilt(model, outputs)

    def part(self, tensor, units=None, factor=None):
        """A `Part` of all its units, unless they are given, and without a factor."""
        units = np.arange(rules.width(tensor)) if units is None else units
        return Part(tensor, units, np.ones(len(units)) if factor is None else factor)

    def select(self, part, units):
        """The part with these of its units only."""
        place = np.flatnonzero(np.isin(part.units, units))
        if len(place) == len(part.units):
            return part
        return Part(keras.ops.take(part.tensor, place.tolist(), axis=-1), part.units[place], part.factor[place])

    def rescaled(self, part, op):
        """The part with its factors multiplied in, for `op` to read."""
        if (part.factor == 1).all():
            return part
        layer = self.new(keras.layers.Rescaling, op, part.factor.tolist(), name="scale")
        return self.part(layer(part.tensor), part.units)

    def like(self, op, **changes):
        """The new layer for `op`, with `changes` to its settings; an operation that is no layer is taken as it is."""
        if not isinstance(op, keras.Layer):
            return op
        if id(op) not in self.layers:
            kind = None
            if self.plain:
                kind = next((stock for stock, kinds in STOCK.items() if rules.is_of(op, kinds)), None)
                if tf.as_dtype(op.compute_dtype).is_floating:
                    changes["dtype"] = "float32"
            self.layers[id(op)] = graph.clone_layer(op, kind, **changes)
        return self.layers[id(op)]

    def new(self, kind, op, *settings, name=None):
        """A new layer of a kind in the place of `op`, or with a name of its own, beside it."""
        dtype = "float32" if self.plain else getattr(op, "dtype_policy", None)
        return kind(*settings, name=self.name(op, name), dtype=dtype)

    def take_weights(self, layer, op, index, offset=0.0):
        """Let the weights of a new layer be those of `op`, each at its index: at once, or as the origin says.

        In the origin, the offset is added to the bias.
        """
        if not index:
            return
        if self.plain:
            graph.take_weights(layer, [np.asarray(weight)[place] for weight, place in zip(op.weights, index)], op)
        elif not any(variable is new for new, *_ in self.origin for variable in layer.weights):
            bias = getattr(layer, "bias", None)
            offsets = [offset if variable is bias else 0.0 for variable in layer.weights]
            self.origin += zip(layer.weights, op.weights, index, offsets)

    def is_shared(self, op):
        """Whether a layer is in several places of the network."""
        return len(self.living.places[id(op)]) > 1

    def name(self, op, beside=None):
        """A name that no other layer has, old or new: the name of `op`, if it is free for what takes its place."""
        wanted = f"{op.name}_{beside}" if beside else op.name
        names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in self.names or (name == op.name and op.name not in self.made))
        self.made.add(free)
        self.names.add(free)
        return free

    def _constant(self, tensor, op):
        """The living units of a tensor that does not vary with the model's input."""
        keep = self.living.kept(tensor)
        value = self.living.constant[id(tensor)][..., keep]
        # A pixel times 0, plus the value. Not the bias of a layer without inputs: oneDNN has no product with none.
        pixels = next(x for x in self.old.inputs if x.dtype != "string")
        x = self.new(keras.layers.Flatten, op, name="pixels")(pixels)
        x = keras.ops.take(x, [0] * value.size, axis=-1)
        x = self.new(keras.layers.Rescaling, op, 0.0, value.ravel().tolist(), name="constant")(x)
        if value.ndim > 1:
            x = self.new(keras.layers.Reshape, op, value.shape, name="shape")(x)
        repeats = [size // own for size, own in zip(tensor.shape[1:-1], value.shape)]
        if any(times > 1 for times in repeats):
            x = keras.ops.tile(x, (1, *repeats, 1))
        return self.part(x, keep)


def _norms(model, living):
    """{id of a tensor: the batch normalisation that alone reads it, after a weighted layer without activation}."""
    once = [places[0] for places in living.places.values() if len(places) == 1]
    readers = [id(tensor) for rule in living.rules for tensor in rule.node.input_tensors]
    readers += map(id, model.outputs)
    linear = {
        id(rule.node.outputs[0])
        for rule in once
        if isinstance(rule, rules.Weighted) and rule.op.activation is keras.activations.linear
    }
    norms = {id(rule.node.input_tensors[0]): rule.op for rule in once if isinstance(rule, rules.Normalisation)}
    return {tensor: norm for tensor, norm in norms.items() if tensor in linear and readers.count(tensor) == 1}
