"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller.

A unit is an index of a tensor's last axis. It lives while it varies with the input and something living reads it:

- it varies if a weight other than zero leads to it from a unit that varies, and no multiplier of zero follows;
- it is read if a weight other than zero leads from it to a unit that lives.

One sweep down the model's graph and one sweep up decide that for every unit. What a dead unit still adds is a constant:
it moves into the biases of those that read it.

A noise layer is any layer with a method `multiplier()`: what it multiplies its units by at test time, (units,).
"""

import keras
import numpy as np

WEIGHTED = (keras.layers.Dense, keras.layers.Conv2D)
# Layers that treat every unit alone.
ALONE = (
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Identity,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
)


def shrink(model):
    """The smaller network: living units only, theta's mean in the weights, stock Keras layers and ops in float32.

    Args:
        model: a built Keras model, Sequential or functional, of Dense, Conv2D, Flatten, the layers in `ALONE`, noise
            layers and what this function returns.
    Returns:
        A Keras model that computes what `model` computes at test time, up to rounding. If no unit lives, a constant.
    Raises:
        ValueError: a layer that is none of these, named.
    """
    multipliers = {layer.name: np.asarray(layer.multiplier()) for layer in model.layers if _is_noise(layer)}
    return _rebuild(model, Living(model, multipliers))


def take_out(model, dead):
    """The network in training without its dead units: noise layers and all, in the model's own precision.

    A unit that nothing living reads goes with them. Every noise layer keeps a unit at least.

    Args:
        model: as for `shrink`.
        dead: {noise layer's name: (units,) bool}.
    Returns:
        smaller: the model, its weights still at their start.
        origin: a list of (variable of smaller, variable of model, index): the one is to be the other[index].
    """
    multipliers = {name: ~units if not units.all() else np.arange(len(units)) == 0 for name, units in dead.items()}
    origin = []
    return _rebuild(model, Living(model, multipliers), origin), origin


class Living:
    """Which units of a model live.

    Args:
        model: as for `shrink`.
        multipliers: {noise layer's name: (units,)}, 0 for a unit that is to go.
    Attributes:
        operations: the model's layers and ops, inputs first.
        keep: {tensor's id: (units,) bool}, the living.
        constant: {tensor's id: (..., units)}, the tensor for an input of zeros: the values of units that do not vary.
    """

    def __init__(self, model, multipliers):
        self.operations = _operations(model)
        self.multipliers = multipliers
        tensors = [op.output for op in self.operations]
        zeros = [np.zeros([1, *x.shape[1:]], x.dtype) for x in model.inputs]
        values = keras.Model(model.inputs, tensors)(zeros)
        self.constant = {id(tensor): np.asarray(value)[0] for tensor, value in zip(tensors, values)}
        self._sweep_down()
        # Units that stay although they do not vary: the outputs, and what no bias can stand for.
        self.pinned = {id(tensor): np.zeros(tensor.shape[-1], bool) for tensor in tensors}
        for tensor in model.outputs:
            self.pinned[id(tensor)][:] = True
        self._sweep_up()
        while self._pin():
            self._sweep_up()

    def _sweep_down(self):
        self.varies = {}
        for op in self.operations:
            if isinstance(op, keras.layers.InputLayer):
                varies = np.ones(op.output.shape[-1], bool)
            else:
                varies = self.varies[id(op.input)]
                if isinstance(op, WEIGHTED):
                    varies = _reads(op)[varies].any(0)
                elif op.name in self.multipliers:
                    varies = varies & (self.multipliers[op.name] != 0)
                elif isinstance(op, keras.layers.Flatten):
                    varies = np.tile(varies, op.output.shape[-1] // len(varies))
                elif _is_take(op):
                    varies = varies[_indices(op)]
            self.varies[id(op.output)] = varies

    def _sweep_up(self):
        read = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        self.keep = {}
        for op in reversed(self.operations):
            keep = self.keep[id(op.output)] = self._living(id(op.output), read)
            if isinstance(op, keras.layers.InputLayer):
                continue
            source, pinned = id(op.input), self.pinned[id(op.output)]
            if isinstance(op, WEIGHTED):
                read[source] |= _reads(op)[:, keep].any(1)
            elif isinstance(op, keras.layers.Flatten):
                read[source] |= keep.reshape(-1, len(read[source])).any(0)
                self.pinned[source] |= pinned.reshape(-1, len(read[source])).any(0)
            elif _is_take(op):
                np.logical_or.at(read[source], _indices(op), keep)
                np.logical_or.at(self.pinned[source], _indices(op), pinned)
            else:
                read[source] |= keep
                self.pinned[source] |= pinned

    def _living(self, tensor, read):
        return self.varies[tensor] & read[tensor] | self.pinned[tensor]

    def _pin(self):
        """Pin the constant inputs of the first operation that no bias can stand for them in; whether there was one."""
        for op in self.operations:
            if isinstance(op, WEIGHTED) and self.keep[id(op.output)].any() and self.keep[id(op.input)].any():
                keep, pinned = self.keep[id(op.input)], self.pinned[id(op.input)]
                part = self._constant_part(op)
                uneven = part.min(axis=0) + 1e-6 * np.abs(part).max(initial=1e-30) < part.max(axis=0)
                if uneven.any():
                    pinned |= ~self.varies[id(op.input)] & ~keep & _reads(op)[:, self.keep[id(op.output)]].any(1)
                    return True
        return False

    def _constant_part(self, op):
        """What the units that are taken out add to each living output of a weighted layer: (positions, outputs)."""
        source = id(op.input)
        constant = np.where(self.keep[source] | self.varies[source], 0, self.constant[source]).astype(np.float32)
        kernel = np.asarray(op.kernel)[..., self.keep[id(op.output)]]
        if isinstance(op, keras.layers.Dense):
            part = constant @ kernel
        else:
            part = keras.ops.conv(constant[None], kernel, op.strides, op.padding, dilation_rate=op.dilation_rate)
        return np.asarray(part).reshape(-1, kernel.shape[-1])

    def bias_part(self, op):
        """The same, where it is even over the positions: (outputs,)."""
        return self._constant_part(op)[0]


def _rebuild(model, living, origin=None):
    """The model with the living units only; without `origin`, plain and with its weights, else as `take_out` says."""
    plain = origin is None
    # {old tensor's id: (new tensor, the old units in it, the factor that each still needs)}
    built = {}

    def select(old):
        """The living units of an old tensor."""
        keep = np.flatnonzero(living.keep[id(old)])
        x, units, factor = built[id(old)]
        place = np.flatnonzero(np.isin(units, keep))
        if len(place) < len(units):
            x, factor = keras.ops.take(x, place.tolist(), axis=-1), factor[place]
        return x, keep, factor

    for op in living.operations:
        keep = np.flatnonzero(living.keep[id(op.output)])
        if isinstance(op, keras.layers.InputLayer):
            built[id(op.output)] = op.output, np.arange(op.output.shape[-1]), np.ones(op.output.shape[-1])
        elif not len(keep):
            continue
        elif isinstance(op, WEIGHTED) and not living.keep[id(op.input)].any():
            built[id(op.output)] = _constant(model, living.constant[id(op.output)][..., keep]), keep, np.ones(len(keep))
        elif isinstance(op, WEIGHTED):
            x, inputs, factor = select(op.input)
            x, layer = _apply(op, x, plain, **{_width(op): len(keep)}, use_bias=True if plain else op.use_bias)
            if plain:
                kernel = np.asarray(op.kernel)[..., inputs, :][..., keep] * factor[:, None]
                bias = np.asarray(op.bias)[keep] if op.use_bias else 0.0
                layer.set_weights([kernel, bias + living.bias_part(op)])
            else:
                origin += _origin(layer, op, inputs, keep)
            built[id(op.output)] = x, keep, np.ones(len(keep))
        elif _is_noise(op) and plain:
            x, units, factor = built[id(op.input)]
            built[id(op.output)] = x, units, factor * living.multipliers[op.name][units]
        elif _is_noise(op):
            x, units, factor = select(op.input)
            x, layer = _apply(op, x, plain)
            origin += _origin(layer, op, units, units)
            built[id(op.output)] = x, units, factor
        elif isinstance(op, keras.layers.Flatten):
            x, units, factor = built[id(op.input)]
            width, positions = op.input.shape[-1], op.output.shape[-1] // op.input.shape[-1]
            x, _ = _apply(op, x, plain)
            units = (np.arange(positions)[:, None] * width + units).ravel()
            built[id(op.output)] = x, units, np.tile(factor, positions)
        elif _is_take(op):
            x, units, factor = built[id(op.input)]
            indices = _indices(op)
            place = [int(np.flatnonzero(units == unit)[0]) for unit in indices[keep]]
            built[id(op.output)] = keras.ops.take(x, place, axis=-1), keep, factor[place]
        elif isinstance(op, keras.layers.BatchNormalization):
            x, units, factor = built[id(op.input)]
            x, layer = _apply(op, _rescaled(x, factor), plain)
            if plain:
                layer.set_weights([np.asarray(weight)[units] for weight in op.weights])
            else:
                origin += _origin(layer, op, units, units)
            built[id(op.output)] = x, units, np.ones(len(units))
        else:
            x, units, factor = built[id(op.input)]
            if not _commutes(op):
                x, factor = _rescaled(x, factor), np.ones(len(units))
            if not plain or not isinstance(op, (keras.layers.Dropout, keras.layers.Identity)):
                x, _ = _apply(op, x, plain)
            built[id(op.output)] = x, units, factor
    outputs = [_rescaled(x, factor) for x, _, factor in (built[id(tensor)] for tensor in model.outputs)]
    return keras.Model(model.inputs, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _operations(model):
    operations = getattr(model, "_functional", model).operations
    for op in operations:
        known = isinstance(op, (keras.layers.InputLayer, keras.layers.Flatten, *WEIGHTED, *ALONE))
        if not (known or _is_noise(op) or _is_take(op)) or getattr(op, "groups", 1) != 1:
            raise ValueError(f"{op.name} is a {type(op).__name__}, which shrink does not know how to make smaller")
        if getattr(op, "activation", None) is keras.activations.softmax:
            raise ValueError(f"{op.name} mixes its units in a softmax; shrink takes networks that end in logits")
    return operations


def _is_noise(op):
    return hasattr(op, "multiplier")


def _is_take(op):
    return type(op).__name__ == "Take"


def _indices(op):
    # Keras keeps the arguments of an op in its node only.
    return np.asarray(op._inbound_nodes[0].arguments.args[1], int)


def _reads(op):
    """Whether a weight other than zero leads from an input to an output: (inputs, outputs) bool."""
    kernel = np.asarray(op.kernel)
    return (kernel != 0).reshape(-1, *kernel.shape[-2:]).any(0)


def _width(op):
    return "units" if isinstance(op, keras.layers.Dense) else "filters"


def _commutes(op):
    """Whether a positive factor on a unit may as well come after the layer."""
    if isinstance(op, keras.layers.Activation):
        return op.activation in (keras.activations.relu, keras.activations.linear)
    return not isinstance(op, keras.layers.ReLU) or (op.max_value is None and not op.threshold)


def _apply(op, x, plain, **changes):
    """A new layer like `op`, with `changes` to its settings, called on x: its output, and the layer."""
    config = {**op.get_config(), **changes}
    if plain:
        config["dtype"] = "float32"
    layer = type(op).from_config(config)
    return layer(x), layer


def _origin(layer, op, inputs, outputs):
    """A weight's last axis is its unit, the one before that its input."""
    pairs = []
    for new, old in zip(layer.trainable_variables + layer.non_trainable_variables, op.variables):
        index = np.ix_(*(range(n) for n in old.shape[:-2]), inputs, outputs) if len(old.shape) > 1 else outputs
        pairs.append((new, old, index))
    return pairs


def _rescaled(x, factor):
    return x if (factor == 1).all() else keras.layers.Rescaling(factor.tolist())(x)


def _constant(model, value):
    """A tensor (batch, *value.shape) that does not vary with the model's input."""
    x = keras.layers.Flatten()(model.inputs[0])
    zero = keras.ops.zeros_like(keras.ops.take(x, [0], axis=-1))
    return keras.layers.Reshape((1,) * value.ndim)(zero) + value
