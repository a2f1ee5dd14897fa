"""The loop around the steps, from the newest checkpoint to the last epoch: progress bar, summaries, signals."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_sbp.utils.io import towers
from keras_sbp.utils.training import shrinking, state
from keras_sbp.utils.training.step import METRICS, Step
from keras_sbp.utils.training.summaries import Summaries

# A call of the graph runs at most this many steps, for about this many seconds. Between two calls, progress is shown,
# signals are handled and a checkpoint may be due.
MAX_STEPS_PER_CALL = 1000
SECONDS_PER_CALL = 2
SECONDS_BETWEEN_CHECKPOINTS = 300


def train(
    model: keras.Model,
    make_step: Callable[[keras.Model], Step],
    strategy: tf.distribute.Strategy,
    directory: str | os.PathLike,
    *,
    name: str = "",
    live_units: Callable[[keras.Model], Mapping[str, np.ndarray]] = shrinking.live_units,
    measure: Callable[[keras.Model], Mapping[str, float]] = lambda model: {},
    after_epoch: Callable[[keras.Model], None] = lambda model: None,
    shrink_every: int = 0,
    summaries_dir: str | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> tuple[keras.Model, float]:
    """Train a model to the last epoch, from the newest checkpoint in the directory if there is one.

    Args:
        model: images to logits.
        make_step: returns the `Step` that trains a network; called again when the network has shrunk.
        strategy: its towers share a step.
        directory: of the checkpoints.
        name: of the run, in the progress bar and in messages.
        live_units: returns {layer's name: (units,) bool}; only shown and written to the summaries.
        measure: called at the end of each epoch; returns further metrics for the summaries.
        after_epoch: called at the end of each epoch; may change weights in place.
        shrink_every: the number of epochs after which units that were dead at the ends of as many epochs are removed
            from the network. 0: never.
        summaries_dir: of the TensorBoard summaries. None: none are written.
        extra: {name: array} to include in each checkpoint.
    Returns:
        The trained model, with fewer units if it was shrunk, and the seconds of training over all its starts.
    Raises:
        UserError: the loss is no longer finite, or the disk is full; the last good checkpoint stays.
        SystemExit: 130 or 143, after a checkpoint, on SIGINT or SIGTERM.
    """
    step, progress = state.resume(directory, model, make_step, strategy)
    not_shared = f"{directory} differs between machines: use a --checkpoints_dir that all of them share"
    towers.check_equal_across_workers(strategy, progress.steps_done, not_shared)
    chief = towers.is_chief(strategy)
    summaries = Summaries(summaries_dir if chief else None)
    saved, num_steps = time.monotonic(), 1
    with _Signals() as signals, _progress_bar(step, progress, name, chief) as bar:
        while progress.steps_done < step.num_steps:
            metrics, num_steps = _advance(step, progress, num_steps, directory, name)
            epoch, remainder = divmod(progress.steps_done, step.steps_per_epoch)
            ended = remainder == 0
            if ended:
                after_epoch(step.model)
            live = live_units(step.model)
            _show(bar, step, progress, metrics, live)
            if ended:
                summaries.write(epoch, metrics, live, measure(step.model) if chief else {})
                step = _end_epoch(step, progress, make_step, shrink_every)
            if (received := signals.received) or ended or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                if chief:
                    state.save(directory, step, progress, name, extra or {})
                saved = time.monotonic()
            if received:
                _stop(received, progress.steps_done, directory if chief else None)
    return step.model, progress.seconds()


def _advance(step, progress, num_steps, directory, name):
    """Run this many steps, or as many as the epoch has left.

    Returns:
        The means of METRICS over the epoch so far, and the number of steps for the next call.
    Raises:
        UserError: the loss is no longer finite.
    """
    epoch, first = divmod(progress.steps_done, step.steps_per_epoch)
    last, start = min(first + num_steps, step.steps_per_epoch), time.monotonic()
    with towers.on_worker_loss(step.strategy, directory):
        sums, last_run = step.run(epoch, first, last)
        # All machines have to make the same calls.
        elapsed = towers.mean(step.strategy, time.monotonic() - start)
    if not np.isfinite(sums).all():
        raise state.not_finite("the loss", epoch * step.steps_per_epoch + int(last_run), name, directory)
    progress.steps_done += last - first
    progress.metric_sums = progress.metric_sums + sums.numpy()
    metrics = dict(zip(METRICS, progress.metric_sums / last))
    return metrics, round(np.clip((last - first) * SECONDS_PER_CALL / elapsed, 1, MAX_STEPS_PER_CALL))


def _progress_bar(step, progress, name, shown):
    total, done = step.num_steps, progress.steps_done
    return tqdm(total=total, initial=done, desc=name, unit="step", disable=not shown, mininterval=1)


def _show(bar, step, progress, metrics, live_units):
    epoch = (progress.steps_done - 1) // step.steps_per_epoch + 1
    text = f"epoch {epoch}/{step.num_steps // step.steps_per_epoch}, error {100 * metrics['error']:.2f} %"
    if live_units:
        text += f", units {'-'.join(str(np.sum(live)) for live in live_units.values())}"
    bar.set_postfix_str(text, refresh=False)
    bar.update(progress.steps_done - bar.n)


def _stop(number, steps_done, directory):
    saved = f", saved in {directory}" if directory else ""
    print(f"stopped at step {steps_done}{saved}; rerun the same command to resume", file=sys.stderr)
    sys.exit(128 + number)


def _end_epoch(step, progress, make_step, shrink_every):
    """Update the progress; returns the step to continue with."""
    progress.metric_sums = np.zeros(len(METRICS))
    progress.epochs_dead = shrinking.count_epochs_dead(progress.epochs_dead, step.model)
    epochs = progress.steps_done // step.steps_per_epoch
    if shrink_every and epochs % shrink_every == 0 and progress.steps_done < step.num_steps:
        step, progress.epochs_dead = shrinking.remove_dead_units(step, make_step, progress.epochs_dead, shrink_every)
    return step


class _Signals:
    """Records SIGINT and SIGTERM instead of letting them end the process."""

    def __enter__(self) -> "_Signals":
        self.received = 0
        self.before = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _record(self, number, frame):
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
