"""Makes golden checkpoints: small networks as one commit saved them, and the outputs that every later one must give.

    python -m tests.golden.make sbp lenet5

A new layer or network gets an entry in MODELS and is made by the commit that brings it. What is made stays as it is: a
file that is there is not written again. tests/test_golden.py loads all of them.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import lenet5, lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.io import data
from tests.support import steps

FOLDER = Path(__file__).parent


def draw(model):
    """Weights at random; of the noise, some units that live and many that do not."""
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.name == "mu":
            variable.assign(generator.uniform(-6, 1, variable.shape))
        elif variable.name == "log_sigma":
            variable.assign(generator.uniform(-6, 4, variable.shape))
        else:
            variable.assign(generator.normal(0, np.prod(variable.shape[:-1]) ** -0.5, variable.shape))
    return model


def sbp():
    """The layer, after features and after channels."""
    inputs = keras.Input((4, 5))
    x = SBP(seed=1, threshold=0.5)(inputs)
    x = keras.layers.Dense(3, activation="relu")(keras.layers.Flatten()(x))
    return draw(keras.Model(inputs, keras.layers.Dense(2)(SBP(seed=2)(x))))


def in_training(build):
    """A network with its noise, and with few enough units for git: as --shrink_every leaves it."""
    model = draw(build(unit=SBP))
    generator = np.random.default_rng(0)
    dead = {
        layer.name: generator.permutation(layer.mu.shape[0]) >= 6 for layer in model.layers if isinstance(layer, SBP)
    }
    smaller, origin = pruning.remove_units(model, dead)
    for variable, old, index, _ in origin:
        variable.assign(np.asarray(old)[index])
    return smaller


MODELS = {
    "sbp": sbp,
    "lenet-fc-sbp": lambda: in_training(lenet_fc.lenet_fc),
    "lenet5-sbp": lambda: in_training(lenet5.lenet5),
    "lenet-fc": lambda: pruning.shrink(in_training(lenet_fc.lenet_fc)),
    "lenet5": lambda: pruning.shrink(in_training(lenet5.lenet5)),
}


def kl(model, done):
    return tf.add_n([tf.reduce_sum(layer.kl_divergence()) for layer in model.layers if isinstance(layer, SBP)])


# How a training checkpoint is made, and gone on with: {name: settings of `steps`}.
TRAINING = {
    "lenet-fc-sbp": {"kl": kl, "rate": lambda variable: 1e-2},
}


def train(name, model, folder, epochs):
    """Train on the digits from the checkpoint in a folder, or from the start; returns the model."""
    digits = data.load("digits", "", "train")
    return steps.train(model, steps.steps(digits, batch_size=500, epochs=epochs, **TRAINING[name]), folder)


def outputs(model):
    """What a model makes of images that it is given: {"inputs", "outputs"}."""
    inputs = np.random.default_rng(1).random((8, *model.inputs[0].shape[1:]), np.float32)
    return {"inputs": inputs, "outputs": model(inputs, training=False).numpy()}


def make(name):
    """Put NAME.keras and NAME.npz, or of training-NAME the checkpoints NAME/ and training-NAME.npz, beside this."""
    if (FOLDER / f"{name}.npz").exists():
        sys.exit(f"error: {name} is made already, and stays as it is")
    run = name.removeprefix("training-")
    model = MODELS[run]()
    if run == name:
        model.save(FOLDER / f"{name}.keras")
    else:
        (FOLDER / run).mkdir()
        model = train(run, model, FOLDER / run, epochs=2)
    np.savez(FOLDER / f"{name}.npz", **outputs(model))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        make(name)
