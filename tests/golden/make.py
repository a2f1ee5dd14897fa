"""Makes golden checkpoints: small networks as one commit saved them, and the outputs that later ones must reproduce.

    python -m tests.golden.make sbp lenet5

A new layer or network gets an entry in MODELS and is made by the commit that introduces it. Files that exist are never
overwritten. tests/test_golden.py loads all of them.
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


def randomize(model):
    """Random weights, and noise with some live units and many dead ones; returns the model."""
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
    """The layer on features and on channels."""
    inputs = keras.Input((4, 5))
    x = SBP(seed=1, threshold=0.5)(inputs)
    x = keras.layers.Dense(3, activation="relu")(keras.layers.Flatten()(x))
    return randomize(keras.Model(inputs, keras.layers.Dense(2)(SBP(seed=2)(x))))


def in_training(build):
    """A network with its noise, shrunk as in training, so that its file is small enough for git."""
    model = randomize(build(unit=SBP))
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


def kl(model, progress):
    return tf.add_n([tf.reduce_sum(layer.kl_divergence()) for layer in model.layers if isinstance(layer, SBP)])


# Settings of `steps` with which a training checkpoint is made and resumed.
TRAINING = {
    "lenet-fc-sbp": {"kl": kl, "rate": lambda variable: 1e-2},
}


def train(name, model, directory, epochs):
    """Train on the digits, from the checkpoint in the directory if there is one; returns the model."""
    digits = data.load("digits", "", "train")
    return steps.train(model, steps.steps(digits, batch_size=500, epochs=epochs, **TRAINING[name]), directory)


def outputs(model):
    """{"inputs", "outputs"} of a model for random inputs."""
    inputs = np.random.default_rng(1).random((8, *model.inputs[0].shape[1:]), np.float32)
    return {"inputs": inputs, "outputs": model(inputs, training=False).numpy()}


def make(name):
    """Write NAME.keras and NAME.npz, or for training-NAME the checkpoints NAME/ and training-NAME.npz."""
    if (FOLDER / f"{name}.npz").exists():
        sys.exit(f"error: {name} already exists")
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
