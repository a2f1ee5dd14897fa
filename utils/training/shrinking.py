"""Taking units out while training runs: those that were dead for long enough, for good."""

import numpy as np
from absl import flags

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from keras_sbp.utils.training.state import noise_layers

# Of the multiply-adds: for less than that, no new graph, which takes the time of hundreds of steps to make.
WORTH_A_GRAPH = 0.1


def define_shrinking_flag(epochs):
    """--shrink_every, for those who give it to `training.train`."""
    flags.DEFINE_integer(
        "shrink_every",
        epochs,
        "Every so many epochs, take units out of the running network: those that were dead at the end of as many in a "
        "row, or that have no weight left, if they are a tenth of its multiply-adds. 0: all at the end.",
        lower_bound=0,
    )


def alive(model):
    """{noise layer's name: (units,) bool, whether the unit is alive}."""
    return {layer.name: np.asarray(layer.multiplier()) != 0 for layer in noise_layers(model)}


def count_under(under, model):
    """`Progress.under` at the end of a further epoch."""
    return {name: (under[name] + 1) * ~units for name, units in alive(model).items()}


def without_dead(step, make, under, epochs):
    """The step of the network without the units that were dead for so many epochs, in the same state.

    Units that no weight other than 0 leads to, or from, go as well.

    Args:
        step: the `Step` that runs.
        make: from a network to its `Step`.
        under: of `Progress`.
        epochs: a unit is dead after so many.
    Returns:
        The step, and `under` of the units that are left. The step that was given where the units are no tenth of the
        multiply-adds, or nothing would be left to train.
    """
    dead = {name: count >= epochs for name, count in under.items()}
    if dead and not any(units.any() for units in dead.values()):
        return step, under
    with step.strategy.scope():
        model, origin = pruning.remove_units(step.model, dead)
    worth_it = counting.multiply_adds(model) <= (1 - WORTH_A_GRAPH) * counting.multiply_adds(step.model)
    if not (worth_it and model.trainable_variables):
        return step, under
    smaller, state = make(model), step.state()
    for _, old, index, offset in origin:
        # A weight, and the moments that the optimiser keeps of it.
        slots = [f"{old.path.replace('/', '_')}_{slot}" for slot in ("momentum", "velocity")]
        for name in state:
            if name == f"model/{old.path}" or name.split("/")[-1] in slots:
                state[name] = state[name][index]
        state[f"model/{old.path}"] += offset
        under = {name: count[index] if old.path == f"{name}/mu" else count for name, count in under.items()}
    smaller.restore(state)
    return smaller, under
