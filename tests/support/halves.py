"""Networks with exactly half of the units of each noise layer dead."""

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit, rebuild
from tests.stress import keras_applications


def kill(noisy, dead):
    """Make these units dead, {noise layer's name: (units,) bool}, and the others live."""
    for layer in fit.noise_layers(noisy):
        layer.mu.assign(np.where(dead[layer.name], -20.0, 0.0))
        layer.log_sigma.assign(np.where(dead[layer.name], 5.0, -4.0))


def half(noisy, rng):
    """{noise layer's name: (units,) bool}, half of them, at random."""
    sizes = {layer.name: layer.mu.shape[0] for layer in fit.noise_layers(noisy)}
    return {name: rng.permutation(size) < size // 2 for name, size in sizes.items()}


def halved(model, seed=0):
    """The network with noise, half of its units dead; and what is left of it."""
    noisy, rng = pruning.insert(model), np.random.default_rng(seed)
    keras_applications.randomize(noisy, rng)
    kill(noisy, half(noisy, rng))
    return noisy, pruning.shrink(noisy)


def differences(model, fractions=(0.5, 1.0)):
    """The largest that noise and the removal of these fractions of the units make."""
    inserted, found = keras_applications.check(model, fractions)
    return max(inserted, *(difference for difference, _ in found))


def difference_in_training(model, seed=0):
    """That of the smaller network whose training goes on from that of the network with its dead units masked."""
    noisy, rng = pruning.insert(model), np.random.default_rng(seed)
    keras_applications.randomize(noisy, rng)
    dead = half(noisy, rng)
    smaller, origin = rebuild.remove_units(noisy, dead)
    assert counting.multiply_adds(smaller) < counting.multiply_adds(noisy)
    kill(noisy, dead)
    for variable, source, index, offset in origin:
        variable.assign(np.asarray(source)[index] + offset)
    inputs = keras_applications.examples(noisy, rng)
    return keras_applications.difference(noisy, smaller, inputs)


def losses_of_five_steps(model, inputs, classes=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=len(keras.tree.flatten(inputs)[0]))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model.fit(inputs, labels, len(labels), epochs=5, verbose=0).history["loss"]
