"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller.

A unit is an index of a tensor's last axis. It lives while it varies with the input and something living reads it:

- it varies if a weight other than zero leads to it from a unit that varies, and no multiplier of zero follows;
- it is read if a weight other than zero leads from it to a unit that lives.

One sweep down the model's graph and one sweep up decide that for every unit. What a dead unit still adds is a constant:
it moves into the biases of those that read it.

A noise layer is any layer with a method `multiplier()`: what it multiplies its units by at test time, (units,). A Dense
or Conv2D with a method `sparse_kernel()` computes with that kernel at test time.
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

# Activations that do not.
MIXING = (
    keras.activations.glu,
    keras.activations.log_softmax,
    keras.activations.softmax,
    keras.activations.sparsemax,
)


def shrink(model):
    """The smaller network: living units only, theta's mean in the weights, stock Keras layers and ops in float32.

    Batch normalisation right after a dense or convolution layer becomes part of that layer's kernel and bias.

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
    living = Living(model, multipliers, biases=False)
    while multipliers and living.lacks_noise():
        # The living units of two layers may miss one another: then all of the later layer's stay.
        multipliers.popitem()
        living = Living(model, multipliers, biases=False)
    origin = []
    return _rebuild(model, living, origin), origin


class Living:
    """Which units of a model live.

    Args:
        model: as for `shrink`.
        multipliers: {noise layer's name: (units,)}, 0 for a unit that is to go.
        biases: whether the constants of dead units move into biases; else a unit whose constant is not 0 stays.
    Attributes:
        operations: the model's layers and ops, inputs first.
        keep: {tensor's id: (units,) bool}, the living.
        constant: {tensor's id: (..., units)}, the tensor for an input of zeros: the values of units that do not vary.
    """

    def __init__(self, model, multipliers, biases=True):
        self.biases = biases
        self.operations = _operations(model)
        scales = {op.name: _scale(op) for op in self.operations if isinstance(op, keras.layers.Rescaling)}
        self.multipliers = scales | multipliers
        self._sweep_down()
        # Units that stay although they do not vary: the outputs, and what no bias can stand for.
        self.pinned = {id(op.output): np.zeros(op.output.shape[-1], bool) for op in self.operations}
        for tensor in model.outputs:
            self.pinned[id(tensor)][:] = True
        self._sweep_up()
        while self._pin():
            self._sweep_up()

    def _sweep_down(self):
        self.varies, self.constant = {}, {}
        for op in self.operations:
            if isinstance(op, keras.layers.InputLayer):
                varies, constant = np.ones(op.output.shape[-1], bool), np.zeros(op.output.shape[1:], op.output.dtype)
            else:
                varies, constant = self.varies[id(op.input)], self.constant[id(op.input)]
                if op.name in self.multipliers:
                    varies = varies & (self.multipliers[op.name] != 0)
                if _is_noise(op) and op.name in self.multipliers:
                    constant = constant * self.multipliers[op.name]
                elif is_take(op):
                    varies, constant = varies[taken(op)], constant[..., taken(op)]
                else:
                    constant = np.asarray(op(constant[None]))[0]
                if isinstance(op, WEIGHTED):
                    varies = _reads(op)[varies].any(0)
                elif isinstance(op, keras.layers.Flatten):
                    varies = np.tile(varies, op.output.shape[-1] // len(varies))
                elif isinstance(op, keras.layers.Reshape):
                    if varies.any():
                        raise ValueError(f"{op.name} is a Reshape, which shrink knows of a constant only")
                    varies = np.zeros(op.output.shape[-1], bool)
            self.varies[id(op.output)], self.constant[id(op.output)] = varies, constant

    def _sweep_up(self):
        read = {tensor: np.zeros_like(varies) for tensor, varies in self.varies.items()}
        self.keep = {}
        for op in reversed(self.operations):
            keep = self.keep[id(op.output)] = self._living(id(op.output), read)
            if isinstance(op, keras.layers.InputLayer) or self.is_constant(op):
                continue
            source, pinned = id(op.input), self.pinned[id(op.output)]
            if isinstance(op, WEIGHTED):
                read[source] |= _reads(op)[:, keep].any(1)
            elif isinstance(op, keras.layers.Flatten):
                read[source] |= keep.reshape(-1, len(read[source])).any(0)
                self.pinned[source] |= pinned.reshape(-1, len(read[source])).any(0)
            elif is_take(op):
                np.logical_or.at(read[source], taken(op), keep)
                np.logical_or.at(self.pinned[source], taken(op), pinned)
            else:
                read[source] |= keep
                self.pinned[source] |= pinned

    def _living(self, tensor, read):
        return self.varies[tensor] & read[tensor] | self.pinned[tensor]

    def _pin(self):
        """Pin the constant inputs of the first operation that no bias can stand for them in; whether there was one."""
        for op in self.operations:
            if isinstance(op, WEIGHTED) and not self.is_constant(op):
                keep, pinned = self.keep[id(op.input)], self.pinned[id(op.input)]
                part = self._constant_part(op)
                if not self.biases:
                    part = np.pad(part, ((0, 1), (0, 0)))
                uneven = part.min(axis=0) + 1e-6 * np.abs(part).max(initial=1e-30) < part.max(axis=0)
                if uneven.any():
                    pinned |= ~self.varies[id(op.input)] & ~keep & _reads(op)[:, self.keep[id(op.output)]].any(1)
                    return True
        return False

    def is_constant(self, op):
        """Whether no living output of an operation varies: its value will do for it."""
        return not (self.keep[id(op.output)] & self.varies[id(op.output)]).any()

    def lacks_noise(self):
        """Whether a noise layer has no unit left."""
        return any(_is_noise(op) and self.is_constant(op) for op in self.operations)

    def reads(self, op):
        """The living units that an operation reads: their indices."""
        outputs = self.keep[id(op.output)]
        read = _reads(op)[:, outputs].any(1) if isinstance(op, WEIGHTED) else outputs
        return np.flatnonzero(self.keep[id(op.input)] & read)

    def _constant_part(self, op):
        """What the units that are taken out add to each living output of a weighted layer: (positions, outputs)."""
        source = id(op.input)
        constant = np.where(self.keep[source] | self.varies[source], 0, self.constant[source]).astype(np.float32)
        kernel = _kernel(op)[..., self.keep[id(op.output)]]
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
    norms = _norms(model, living.operations) if plain else {}
    # {old tensor's id: (new tensor, the old units in it, the factor that each still needs)}
    built = {}

    def select(op):
        """The living units that an operation reads."""
        reads = living.reads(op)
        x, units, factor = built[id(op.input)]
        place = np.flatnonzero(np.isin(units, reads))
        if len(place) < len(units):
            x, factor = keras.ops.take(x, place.tolist(), axis=-1), factor[place]
        return x, reads, factor

    for op in living.operations:
        keep = np.flatnonzero(living.keep[id(op.output)])
        if isinstance(op, keras.layers.InputLayer):
            built[id(op.output)] = op.output, np.arange(op.output.shape[-1]), np.ones(op.output.shape[-1])
        elif not len(keep):
            continue
        elif living.is_constant(op):
            value = living.constant[id(op.output)][..., keep]
            built[id(op.output)] = _constant(model, value, op.name), keep, np.ones(len(keep))
        elif isinstance(op, WEIGHTED):
            x, inputs, factor = select(op)
            x, layer = _apply(op, x, plain, **{_width(op): len(keep)}, use_bias=True if plain else op.use_bias)
            if plain:
                kernel = _kernel(op)[..., inputs, :][..., keep] * factor[:, None]
                bias = (np.asarray(op.bias)[keep] if op.use_bias else 0.0) + living.bias_part(op)
                if id(op.output) in norms:
                    scale, offset = _affine(norms[id(op.output)])
                    kernel, bias = kernel * scale[keep], bias * scale[keep] + offset[keep]
                layer.set_weights([kernel, bias])
            else:
                origin += _origin(layer, op, inputs, keep)
            built[id(op.output)] = x, keep, np.ones(len(keep))
        elif isinstance(op, keras.layers.Rescaling) or (_is_noise(op) and plain):
            x, units, factor = built[id(op.input)]
            factor = factor * living.multipliers[op.name][units]
            if not plain:
                x, factor = _rescaled(x, factor, op), np.ones(len(units))
            built[id(op.output)] = x, units, factor
        elif _is_noise(op):
            x, units, factor = select(op)
            x, layer = _apply(op, x, plain)
            origin += _origin(layer, op, units, units)
            built[id(op.output)] = x, units, factor
        elif isinstance(op, keras.layers.Flatten):
            x, units, factor = built[id(op.input)]
            width, positions = op.input.shape[-1], op.output.shape[-1] // op.input.shape[-1]
            x, _ = _apply(op, x, plain)
            units = (np.arange(positions)[:, None] * width + units).ravel()
            built[id(op.output)] = x, units, np.tile(factor, positions)
        elif is_take(op):
            x, units, factor = built[id(op.input)]
            indices = taken(op)
            place = [int(np.flatnonzero(units == unit)[0]) for unit in indices[keep]]
            built[id(op.output)] = keras.ops.take(x, place, axis=-1), keep, factor[place]
        elif id(op.input) in norms:
            built[id(op.output)] = built[id(op.input)]
        elif _is_norm(op):
            x, units, factor = built[id(op.input)]
            x, layer = _apply(op, _rescaled(x, factor, op), plain)
            if plain:
                layer.set_weights([np.asarray(weight)[units] for weight in op.weights])
            else:
                origin += _origin(layer, op, units, units)
            built[id(op.output)] = x, units, np.ones(len(units))
        else:
            x, units, factor = built[id(op.input)]
            if not _commutes(op):
                x, factor = _rescaled(x, factor, op), np.ones(len(units))
            if not plain or not isinstance(op, (keras.layers.Dropout, keras.layers.Identity)):
                x, _ = _apply(op, x, plain)
            built[id(op.output)] = x, units, factor
    outputs = []
    for tensor in model.outputs:
        x, _, factor = built[id(tensor)]
        outputs.append(_rescaled(x, factor, tensor._keras_history.operation))
    return keras.Model(model.inputs, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _norms(model, operations):
    """{id of a tensor: the batch normalisation that alone reads it, after a weighted layer without activation}."""
    readers = [id(op.input) for op in operations if not isinstance(op, keras.layers.InputLayer)]
    readers += map(id, model.outputs)
    linear = {
        id(op.output)
        for op in operations
        if isinstance(op, WEIGHTED) and op.activation is keras.activations.linear and readers.count(id(op.output)) == 1
    }
    return {id(op.input): op for op in operations if _is_norm(op) and id(op.input) in linear}


def _is_norm(op):
    return isinstance(op, keras.layers.BatchNormalization)


def _affine(norm):
    """What batch normalisation multiplies a unit by and adds to it at test time: two (units,)."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    scale = (np.asarray(norm.gamma) if norm.scale else 1.0) / deviation
    return scale, (np.asarray(norm.beta) if norm.center else 0.0) - np.asarray(norm.moving_mean) * scale


def _operations(model):
    functional = getattr(model, "_functional", model)
    nodes = sum(functional._nodes_by_depth.values(), [])
    for op in functional.operations:
        if not (_is_noise(op) or _is_known(op)):
            raise ValueError(f"{op.name} is a {type(op).__name__}, which shrink does not know how to make smaller")
        if getattr(op, "activation", None) in MIXING:
            raise ValueError(f"{op.name} mixes its units in a softmax; shrink takes networks that end in logits")
        if [node for node in nodes if node.operation is op] != op._inbound_nodes[:1]:
            raise ValueError(f"{op.name} is in more than one place of the network; shrink takes one that is in one")
    return functional.operations


def _is_known(op):
    if isinstance(op, keras.layers.Rescaling):
        # A factor that is not negative, or a constant.
        return np.all(np.asarray(op.scale) >= 0) and not (np.any(op.offset) and np.any(op.scale))
    known = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape, *WEIGHTED, *ALONE)
    return (isinstance(op, known) or is_take(op)) and (
        getattr(op, "groups", 1) == 1
        and getattr(op, "data_format", None) != "channels_first"
        and getattr(op, "axis", -1) in (-1, len(op.output.shape) - 1)
    )


def _is_noise(op):
    return hasattr(op, "multiplier")


def is_take(op):
    return type(op).__name__ == "Take"


def taken(op):
    # Keras keeps the arguments of an op in its node only.
    return np.asarray(op._inbound_nodes[0].arguments.args[1], int)


def _scale(op):
    return np.broadcast_to(op.scale, op.output.shape[-1:])


def _kernel(op):
    """What a weighted layer multiplies its inputs by at test time."""
    return np.asarray(op.sparse_kernel() if hasattr(op, "sparse_kernel") else op.kernel)


def _reads(op):
    """Whether a weight other than zero leads from an input to an output: (inputs, outputs) bool."""
    kernel = _kernel(op)
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))


def _width(op):
    return "units" if isinstance(op, keras.layers.Dense) else "filters"


def _commutes(op):
    """Whether a positive factor on a unit may as well come after the layer."""
    if isinstance(op, keras.layers.Activation):
        return op.activation in (keras.activations.relu, keras.activations.linear)
    return not isinstance(op, keras.layers.ReLU) or (op.max_value is None and not op.threshold)


def _apply(op, x, plain, **changes):
    """A new layer like `op`, with `changes` to its settings, called on x: its output, and the layer."""
    kind = type(op)
    if plain:
        kind = next((stock for stock in (*WEIGHTED, keras.layers.BatchNormalization) if isinstance(op, stock)), kind)
    config = {**kind.get_config(op), **changes}
    if plain:
        config["dtype"] = "float32"
    layer = kind.from_config(config)
    return layer(x), layer


def _origin(layer, op, inputs, outputs):
    """A weight's last axis is its unit, the one before that its input."""
    pairs = []
    for new, old in zip(layer.weights, op.weights):
        index = np.ix_(*(range(n) for n in old.shape[:-2]), inputs, outputs) if len(old.shape) > 1 else outputs
        pairs.append((new, old, index))
    return pairs


def _rescaled(x, factor, op):
    return x if (factor == 1).all() else keras.layers.Rescaling(factor.tolist(), name=f"{op.name}_scale")(x)


def _constant(model, value, name):
    """A tensor (batch, *value.shape) that does not vary with the model's input."""
    # A pixel times 0, plus the value. Not the bias of a layer without inputs: oneDNN has no product with none.
    x = keras.layers.Flatten(name=f"{name}_pixels")(model.inputs[0])
    x = keras.ops.take(x, [0] * value.size, axis=-1)
    x = keras.layers.Rescaling(0.0, value.ravel().tolist(), name=f"{name}_constant")(x)
    return x if value.ndim == 1 else keras.layers.Reshape(value.shape, name=f"{name}_shape")(x)
