"""Small networks with noise, random ones too, and what tests do to them: random weights, dead units, comparisons."""

import keras
import numpy as np
from keras import layers
from keras.layers import Conv2D, Dense, Flatten

from keras_sbp.layers.sbp import SBP

TOLERANCE = 1e-4


WEIGHTED = (Conv2D, Dense)


@keras.saving.register_keras_serializable(package="tests")
class Noise(layers.Layer):
    """What `shrink` needs of a noise layer, and faster than SBP."""

    def build(self, input_shape):
        self.theta = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.theta

    def multiplier(self):
        return keras.ops.convert_to_tensor(self.theta)


def small_lenet5(unit):
    inputs = keras.Input((8, 8, 3))
    x = Conv2D(4, 3, activation="relu")(inputs)
    x = unit(name="conv1_unit")(x)
    x = layers.MaxPooling2D()(x)
    x = Conv2D(5, 2, activation="relu")(x)
    x = unit(name="conv2_unit")(x)
    x = Flatten()(x)
    x = unit(name="features_unit")(x)
    x = Dense(8, activation="relu")(x)
    x = unit(name="dense1_unit")(x)
    return keras.Model(inputs, Dense(4)(x))


def small_lenet_fc(unit):
    x = [Flatten(), unit(name="pixels_unit"), Dense(9, activation="relu"), unit(name="dense1_unit")]
    y = [Dense(7, activation="relu"), unit(name="dense2_unit"), Dense(4)]
    return keras.Sequential([keras.Input((4, 4, 1)), *x, *y])


def random_network(rng):
    """A small network of random layers that have rules, with one or two outputs."""

    def some(x, *kinds):
        for kind in rng.permutation(len(kinds))[: rng.integers(4)]:
            x = kinds[kind]()(x)
        return x

    def between(x):
        shape = x.shape[1:-1]
        kinds = [Noise, Noise, layers.BatchNormalization, layers.ReLU, layers.Identity, lambda: layers.Dropout(0.5)]
        kinds.append(lambda: layers.Activation(str(rng.choice(["relu", "tanh", "sigmoid", "linear"]))))
        if shape and min(shape) > 1:
            kinds.append(lambda: [layers.AveragePooling2D, layers.MaxPooling2D][rng.integers(2)](2))
        return some(x, *kinds)

    def dense(x, units):
        return Dense(units, use_bias=bool(rng.integers(2)), activation=str(rng.choice(["linear", "relu"])))(x)

    x = inputs = keras.Input((8, 8, int(rng.choice([1, 3]))))
    for _ in range(rng.choice([0, 1, 2, 2])):
        strides, dilation = [(1, 1), (2, 1), (1, 2)][rng.integers(3)]
        x = Conv2D(
            int(rng.integers(2, 6)),
            int(rng.integers(1, 4)),
            strides,
            padding="same" if x.shape[1] < 5 else str(rng.choice(["same", "valid"])),
            dilation_rate=dilation,
            use_bias=bool(rng.integers(2)),
            activation=str(rng.choice(["linear", "relu", "tanh"])),
        )(x)
        x = between(x)
    if rng.integers(2):
        x = between(dense(x, 5))
    x = Flatten()(x) if rng.integers(2) else layers.GlobalAveragePooling2D()(x)
    x = between(x)
    return keras.Model(inputs, [Dense(4)(between(dense(x, 6))) for _ in range(rng.integers(1, 3))])


def noises(model):
    return [layer for layer in model.layers if isinstance(layer, (Noise, SBP))]


def kill(layer, dead, rng):
    """Make these units of a noise layer dead and the others live."""
    if isinstance(layer, SBP):
        layer.mu.assign(np.where(dead, -20.0, rng.uniform(-1, 0.5, len(dead))))
        layer.log_sigma.assign(np.where(dead, 5.0, rng.uniform(-5, -3, len(dead))))
    else:
        layer.theta.assign(np.where(dead, 0.0, rng.uniform(0.3, 2, len(dead))))


def draw_dead(model, rng):
    """{noise layer's name: (units,) bool}: dead units at random, of some layers none or all."""
    found = noises(model)
    fractions = rng.choice([0, 0.3, 0.6, 0.9, 1], size=len(found), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    return {layer.name: rng.random(layer.input.shape[-1]) < dead for layer, dead in zip(found, fractions)}


def draw_weights(model, rng, zeros=0.0):
    """Set random weights, statistics and dead units; a fraction `zeros` of filters, of inputs and of weights is 0."""
    dead = draw_dead(model, rng)
    for layer in model.layers:
        if isinstance(layer, (Noise, SBP)):
            kill(layer, dead[layer.name], rng)
        elif isinstance(layer, WEIGHTED):
            kernel = rng.normal(size=layer.kernel.shape) / np.sqrt(np.prod(layer.kernel.shape[:-1]))
            for shape in (kernel.shape[-1:], kernel.shape[-2:-1] + (1,), kernel.shape):
                kernel *= rng.random(shape) >= zeros
            layer.set_weights([kernel, *(rng.normal(size=weight.shape) for weight in layer.weights[1:])])
        elif isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = rng.normal(size=(4, layer.input.shape[-1]))
            layer.set_weights([gamma, beta, mean, variance**2 + 0.5])
    return model


def images(model, count=8):
    found = [np.random.default_rng(0).random((count, *x.shape[1:]), np.float32) for x in model.inputs]
    return found if len(found) > 1 else found[0]


def outputs(model):
    return [np.asarray(output, np.float32) for output in keras.tree.flatten(model(images(model)))]


def difference(model, other):
    """The largest between the outputs of two networks, relative to the outputs' scale."""
    pairs = list(zip(outputs(model), outputs(other), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30) for a, b in pairs)
