"""What a training checkpoint holds: the network, everything that a step changes, and the progress of the run."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.io import checkpoint, networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.training.step import METRICS, Step, weights

# Operations that `pruning.remove_units` may add to a network.
ADDED_OPERATIONS = {"Conv2D", "Dense", "Flatten", "Rescaling", "Reshape", "Take"}
# And in place of a LayerNormalization.
ADDED_OPERATIONS |= {"LayerNormalization", "Mean", "Multiply", "Pad", "RMSNormalization", "Subtract"}


@dataclasses.dataclass
class Progress:
    """The progress of a run.

    Attributes:
        steps_done: the number of steps so far.
        metric_sums: the sums of METRICS over the steps of the current epoch so far.
        epochs_dead: {noise layer's name: at the ends of how many epochs in a row units were dead}, an int for all units
            or (units,).
        earlier_seconds: the duration of earlier starts of the run.
        start: the start of this one, by time.monotonic().
    """

    steps_done: int
    metric_sums: np.ndarray
    epochs_dead: Mapping[str, np.ndarray | int]
    earlier_seconds: float
    start: float

    def seconds(self) -> float:
        """The duration of the training, over all its starts."""
        return self.earlier_seconds + time.monotonic() - self.start


def noise_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose units may die in training."""
    return [layer for layer in model.layers if hasattr(layer, "multiplier")]


def save(
    directory: str | os.PathLike, step: Step, progress: Progress, name: str, extra: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint of a step's network, with further arrays.

    Raises:
        UserError: a weight is not finite, or the file cannot be written.
    """
    state = step.state()
    if not all(np.isfinite(array).all() for array in state.values()):
        raise not_finite("a weight", progress.steps_done, name, directory)
    arrays = {
        "config": np.array(step.model.to_json()),
        "done": progress.steps_done,
        "steps": step.steps_per_epoch,
        "total": progress.metric_sums,
        "seconds": progress.seconds(),
        **{f"under/{layer}": epochs for layer, epochs in progress.epochs_dead.items()},
    }
    checkpoint.save(directory, progress.steps_done, {**arrays, **state, **extra})


def not_finite(what: str, step: int, name: str, directory: str | os.PathLike) -> UserError:
    """The error to raise when training diverges."""
    return UserError(
        f"{what} is no longer finite at step {step} of {name}; {directory} keeps the last good checkpoint: use lower "
        "learning rates and another --checkpoints_dir"
    )


def resume(
    directory: str | os.PathLike,
    model: keras.Model,
    make_step: Callable[[keras.Model], Step],
    strategy: tf.distribute.Strategy,
) -> tuple[Step, Progress]:
    """The step and the progress of the newest checkpoint in a directory, or of a new run if there is none.

    Args:
        directory: of the run.
        model: the network with all its units.
        make_step: returns the `Step` that trains a network.
        strategy: in whose scope the network is built.
    Raises:
        UserError: the checkpoint is of another run, or none is intact.
    """
    start, arrays = time.monotonic(), checkpoint.latest(directory)
    if not arrays:
        progress = Progress(0, np.zeros(len(METRICS)), dict.fromkeys(_noise_names(model), 0), 0.0, start)
        return make_step(model), progress
    with _refuse_other_runs(directory), strategy.scope():
        model = _build_checked(arrays, model)
    step = make_step(model)
    with _refuse_other_runs(directory):
        step.restore(arrays)
        progress = _progress(arrays, step, start)
    print(f"{directory}: resuming from step {progress.steps_done} of {step.num_steps}", file=sys.stderr)
    return step, progress


def load_network(arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """The network of a training checkpoint, including its noise and dead units.

    Args:
        arrays: what `checkpoint.latest` returned.
    """
    model = _build(arrays)
    for v in weights(model):
        v.assign(arrays[f"model/{v.path}"])
    return model


def _build(arrays):
    """The network of a checkpoint, without its weights."""
    return networks.from_config(str(arrays["config"]), sum(array.nbytes for array in arrays.values()))


def _build_checked(arrays, original):
    """The network of a checkpoint, if it can be what `pruning.remove_units` left of the original; else ValueError."""
    model = _build(arrays)
    operations = {type(op).__name__ for op in model.operations}
    known = {type(op).__name__ for op in original.operations} | ADDED_OPERATIONS
    same_shapes = (model.input_shape, model.output_shape) == (original.input_shape, original.output_shape)
    if not (operations <= known and same_shapes):
        raise ValueError("it holds another network")
    return model


@contextlib.contextmanager
def _refuse_other_runs(directory):
    """Turn whatever an intact checkpoint of another run makes Python and Keras raise into one line."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"the checkpoint in {directory} is of another run ({error}): choose another --checkpoints_dir"
        ) from None


def _progress(arrays, step, start):
    if arrays.get("steps", step.steps_per_epoch) != step.steps_per_epoch:
        raise ValueError(
            f"it had {arrays['steps']} steps per epoch, not {step.steps_per_epoch}, with another number of towers"
        )
    steps_done, metric_sums, seconds = arrays["done"], arrays["total"], arrays["seconds"]
    epochs_dead = {name: arrays[f"under/{name}"] for name in _noise_names(step.model)}
    counters = [(steps_done, [()])]
    counters += [(epochs_dead[layer.name], [(), layer.mu.shape]) for layer in noise_layers(step.model)]
    if not all(
        counter.dtype.kind == "i" and counter.shape in shapes and (counter >= 0).all() for counter, shapes in counters
    ):
        raise ValueError("it has invalid counters")
    sums_valid = metric_sums.shape == (len(METRICS),) and np.isfinite(metric_sums).all()
    if steps_done > step.num_steps or not sums_valid or not np.isfinite(seconds):
        raise ValueError("it has invalid progress")
    return Progress(int(steps_done), metric_sums, epochs_dead, float(seconds), start)


def _noise_names(model):
    return [layer.name for layer in noise_layers(model)]
