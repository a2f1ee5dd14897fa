"""What a training checkpoint holds: the network, all that a step changes, and how far the run is."""

import contextlib
import dataclasses
import sys
import time

import numpy as np

from keras_sbp.utils.io import checkpoint, networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.training.step import FIGURES, weights


@dataclasses.dataclass
class Progress:
    """How far a run is.

    done: steps that are over.
    total: the sums of FIGURES over the epoch's steps so far.
    under: {noise layer's name: at how many epochs' ends in a row a unit was dead}, an int for all units
        or (units,).
    seconds: of the starts before this one.
    start: of this one, as time.monotonic gives it.
    """

    done: int
    total: np.ndarray
    under: dict
    seconds: float
    start: float

    def spent(self):
        """Seconds of training, over all starts."""
        return self.seconds + time.monotonic() - self.start


def noise_layers(model):
    """The layers whose units training may find dead."""
    return [layer for layer in model.layers if hasattr(layer, "multiplier")]


def save(folder, step, progress, name, extra):
    """Write the checkpoint of a step's network, and {name: array} more.

    Raises:
        UserError: a weight is not finite, or the file cannot be written.
    """
    state = step.state()
    if not all(np.isfinite(array).all() for array in state.values()):
        raise not_finite("a weight", progress.done, name, folder)
    counters = {f"under/{name}": count for name, count in progress.under.items()}
    counters |= {"done": progress.done, "steps": step.steps, "total": progress.total, "seconds": progress.spent()}
    config = np.array(step.model.to_json())
    checkpoint.save(folder, progress.done, {"config": config, **counters, **state, **extra})


def not_finite(what, at, name, folder):
    """The error to raise."""
    return UserError(
        f"{what} is no longer finite at step {at} of {name}; {folder} keeps the last good checkpoint: give lower "
        "learning rates and another --checkpoints_dir"
    )


def started(folder, model, make, strategy):
    """The step and the progress that a run begins with: of the newest checkpoint in its folder, or of the model.

    Args:
        folder: of the run.
        model: the network with all its units.
        make: from a network to its `Step`.
        strategy: of tf.distribute.
    Raises:
        UserError: the checkpoint is of another run, or none is whole.
    """
    start, arrays = time.monotonic(), checkpoint.latest(folder)
    if not arrays:
        return make(model), Progress(0, np.zeros(len(FIGURES)), dict.fromkeys(_names(model), 0), 0.0, start)
    with _reading(folder), strategy.scope():
        model = _network(arrays, model)
    step = make(model)
    with _reading(folder):
        step.restore(arrays)
        progress = _progress(arrays, step, start)
    print(f"{folder}: going on from step {progress.done} of {step.total}", file=sys.stderr)
    return step, progress


def network(arrays):
    """The network of a training checkpoint, as `checkpoint.latest` reads it: noise, dead units and all."""
    model = _made(arrays)
    for v in weights(model):
        v.assign(arrays[f"model/{v.path}"])
    return model


def _made(arrays):
    """The network of a checkpoint, without its weights."""
    return networks.from_config(str(arrays["config"]), sum(array.nbytes for array in arrays.values()))


@contextlib.contextmanager
def _reading(folder):
    """One line for what a checkpoint that is whole, but not of this run, makes Python and Keras raise."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"the checkpoint in {folder} is not of this run ({error}); give another --checkpoints_dir"
        ) from None


def _network(arrays, whole):
    """The network of a checkpoint: `whole`, or what `pruning.remove_units` left of it."""
    model = _made(arrays)
    kinds = {type(op).__name__ for op in model.operations}
    known = {type(op).__name__ for op in whole.operations}
    known |= {"Conv2D", "Dense", "Flatten", "Rescaling", "Reshape", "Take"}
    if not kinds <= known or model.input_shape != whole.input_shape or model.output_shape != whole.output_shape:
        raise ValueError("its network is another one")
    return model


def _progress(arrays, step, start):
    if arrays.get("steps", step.steps) != step.steps:
        raise ValueError(f"it had {arrays['steps']} steps an epoch, not {step.steps}, with another number of towers")
    done, total, seconds = arrays["done"], arrays["total"], arrays["seconds"]
    under = {name: arrays[f"under/{name}"] for name in _names(step.model)}
    counts = [(done, [()]), *((under[layer.name], [(), layer.mu.shape]) for layer in noise_layers(step.model))]
    if not all(count.dtype.kind == "i" and count.shape in shapes and (count >= 0).all() for count, shapes in counts):
        raise ValueError("its counts cannot be right")
    if done > step.total or total.shape != (len(FIGURES),) or not np.isfinite(total).all() or not np.isfinite(seconds):
        raise ValueError("its progress cannot be right")
    return Progress(int(done), total, under, float(seconds), start)


def _names(model):
    return [layer.name for layer in noise_layers(model)]
