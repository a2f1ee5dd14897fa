"""The loop around the steps: progress, summaries, checkpoints, signals, from the last checkpoint to the last epoch."""

import signal
import sys
import time

import numpy as np
from tqdm import tqdm

from keras_sbp.utils.io import towers
from keras_sbp.utils.training import shrinking, state
from keras_sbp.utils.training.step import FIGURES
from keras_sbp.utils.training.summaries import Summaries

# A call of the graph runs at most so many steps, and about so many seconds: between two calls the progress is shown, a
# signal is heard and a checkpoint is due.
CHUNK = 1000
SECONDS_A_CHUNK = 2
SECONDS_BETWEEN_CHECKPOINTS = 300


def train(
    model,
    make,
    strategy,
    folder,
    *,
    name="",
    alive=shrinking.alive,
    measure=lambda model: {},
    after_epoch=lambda model: None,
    shrink_every=0,
    summaries_dir=None,
    extra=None,
):
    """Train a model to the last epoch, from the newest checkpoint in the folder if there is one.

    Args:
        model: a Keras model of images in, logits out.
        make: from a network to the `Step` that trains it.
        strategy: of tf.distribute.
        folder: where checkpoints go.
        name: of the run, for the progress bar and messages.
        alive: from a model to which units live, {layer's name: (units,) bool}: for the eye.
        measure: from a model to {name: float}, called at the end of every epoch, for its summary.
        after_epoch: called with the model at the end of every epoch, to change weights for what no step can do.
        shrink_every: every so many epochs, units dead for as many are taken out for good; 0: never.
        summaries_dir: where TensorBoard's summaries go, or None.
        extra: {name: array} to put in every checkpoint.
    Returns:
        The trained model, and the seconds that training took over all its starts.
    Raises:
        UserError: the loss is no longer finite, or the disk is full; the last good checkpoint stays.
        SystemExit: 130 or 143, after a checkpoint, when interrupted or terminated.
    """
    step, progress = state.started(folder, model, make, strategy)
    chief = towers.is_chief(strategy)
    summaries = Summaries(summaries_dir if chief else None)
    other = f"{folder} is not the same on all machines: put --checkpoints_dir where all see it"
    towers.agree(strategy, progress.done, other)
    bar = tqdm(total=step.total, initial=progress.done, desc=name, unit="step", disable=not chief, mininterval=1)
    saved, length = time.monotonic(), 1
    with _Signals() as signals, bar:
        while progress.done < step.total:
            epoch = progress.done // step.steps
            figures, length = _advance(step, progress, length, folder, name)
            ended = progress.done % step.steps == 0
            if ended:
                after_epoch(step.model)
            units = alive(step.model)
            _show(bar, progress.done, f"epoch {epoch + 1}/{step.total // step.steps}", figures, units)
            if ended:
                summaries.write(epoch + 1, figures, units, measure(step.model) if chief else {})
                step = _end_epoch(step, progress, make, shrink_every)
            if (stop := signals.received) or ended or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                if chief:
                    state.save(folder, step, progress, name, extra or {})
                saved = time.monotonic()
            if stop:
                _stop(stop, progress.done, folder if chief else None)
    return step.model, progress.spent()


def _advance(step, progress, length, folder, name):
    """Take so many steps, or as many as the epoch has left; FIGURES' means over it so far, and the next length.

    Raises:
        UserError: the loss is no longer finite.
    """
    epoch, first = divmod(progress.done, step.steps)
    last, began = min(first + length, step.steps), time.monotonic()
    with towers.all_there(step.strategy, folder):
        sums, at = step.run(epoch, first, last)
        # Machines have to call the graph alike.
        elapsed = towers.mean(step.strategy, time.monotonic() - began)
    if not np.isfinite(sums).all():
        raise state.not_finite("the loss", epoch * step.steps + int(at), name, folder)
    progress.done += last - first
    progress.total = progress.total + sums.numpy()
    figures = dict(zip(FIGURES, progress.total / last))
    return figures, round(np.clip((last - first) * SECONDS_A_CHUNK / elapsed, 1, CHUNK))


def _show(bar, done, epoch, figures, units):
    text = f"{epoch}, error {100 * figures['error']:.2f} %"
    if units:
        text += f", units {'-'.join(str(np.sum(living)) for living in units.values())}"
    bar.set_postfix_str(text, refresh=False)
    bar.update(done - bar.n)


def _stop(number, done, folder):
    saved = f", saved in {folder}" if folder else ""
    print(f"stopped at step {done}{saved}; the same command goes on from there", file=sys.stderr)
    sys.exit(128 + number)


def _end_epoch(step, progress, make, shrink_every):
    """The step to go on with."""
    progress.total = np.zeros(len(FIGURES))
    progress.under = shrinking.count_under(progress.under, step.model)
    epochs = progress.done // step.steps
    if shrink_every and epochs % shrink_every == 0 and progress.done < step.total:
        step, progress.under = shrinking.without_dead(step, make, progress.under, shrink_every)
    return step


class _Signals:
    """Notes SIGINT and SIGTERM instead of being ended by them."""

    def __enter__(self):
        self.received = 0
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame):
        self.received = number

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
