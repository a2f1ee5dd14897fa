"""Removing dead units permanently while training runs."""

from collections.abc import Callable, Mapping

import keras
import numpy as np

from keras_sbp.layers import sbp
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from keras_sbp.utils.training.state import noise_layers
from keras_sbp.utils.training.step import Step

# The fraction of the MACs that shrinking has to save: building a new graph takes the time of hundreds of steps.
MIN_SHRINK_FRACTION = 0.1


def live_units(model: keras.Model) -> dict[str, np.ndarray]:
    """{noise layer's name: (units,) bool}: the live units."""
    return {layer.name: np.asarray(theta) != 0 for layer, theta in sbp.multipliers(noise_layers(model)).items()}


def count_epochs_dead(epochs_dead: Mapping[str, np.ndarray | int], model: keras.Model) -> dict[str, np.ndarray]:
    """`Progress.epochs_dead` at the end of one more epoch."""
    return {name: (epochs_dead[name] + 1) * ~live for name, live in live_units(model).items()}


def remove_dead_units(
    step: Step,
    make_step: Callable[[keras.Model], Step],
    epochs_dead: Mapping[str, np.ndarray],
    min_epochs: int,
) -> tuple[Step, Mapping[str, np.ndarray]]:
    """Remove the units that were dead for at least `min_epochs`, and those without a nonzero weight in or out.

    Args:
        step: the running step.
        make_step: returns the `Step` that trains a network.
        epochs_dead: see `Progress`.
        min_epochs: for how many epochs in a row a unit must have been dead.
    Returns:
        The step of the smaller network, in the same state, and `epochs_dead` of the remaining units. What was given, if
        that would save less than MIN_SHRINK_FRACTION of the MACs or leave nothing to train.
    """
    dead = {name: epochs >= min_epochs for name, epochs in epochs_dead.items()}
    if dead and not any(units.any() for units in dead.values()):
        return step, epochs_dead
    with step.strategy.scope():
        model, origin = pruning.remove_units(step.model, dead)
    max_macs = (1 - MIN_SHRINK_FRACTION) * counting.multiply_adds(step.model)
    if counting.multiply_adds(model) > max_macs or not model.trainable_variables:
        return step, epochs_dead
    smaller, state = make_step(model), step.state()
    for _, old, index, offset in origin:
        # A weight, and the moments that the optimizer keeps of it.
        slots = [f"{old.path.replace('/', '_')}_{slot}" for slot in ("momentum", "velocity")]
        for name in state:
            if name == f"model/{old.path}" or name.split("/")[-1] in slots:
                state[name] = state[name][index]
        state[f"model/{old.path}"] += offset
        epochs_dead = {
            name: epochs[index] if old.path == f"{name}/mu" else epochs for name, epochs in epochs_dead.items()
        }
    smaller.restore(state)
    return smaller, epochs_dead
