"""Three trainings: with noise, fine-tuning without noise, and the control, the whole network without noise."""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import fit, graph
from keras_sbp.utils.tool import targets
from keras_sbp.utils.tool.checkpoint import Checkpoint
from keras_sbp.utils.tool.examples import FollowEpochs, Parts, Stream
from keras_sbp.utils.tool.plan import Plan
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.tasks import Task

# Batch normalization averages over at most this fraction of a training.
AVERAGED = 0.1


class Progress(keras.callbacks.Callback):
    """A progress bar on stderr: epochs, MACs and the validation score."""

    def __init__(self, name: str, task: Task, validation: Any, full: int | None = None):
        super().__init__()
        self.name, self.task, self.validation, self.full = name, task, validation, full
        self.bar = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        """What is said next begins on a line of its own, even after an error."""
        if self.bar:
            self.bar.close()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.bar = tqdm(total=self.params["epochs"], desc=self.name, unit="epoch", file=sys.stderr)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.update(epoch - self.bar.n)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        score = self.task.evaluate(self.model, self.validation).value
        shown = f"validation {self.task.metric.split(',')[0].lower()} {score:.4g}"
        if self.full and "macs" in logs:
            shown = f"{self.full / logs['macs']:.2f}x fewer MACs, {shown}"
        self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update()


class Trainer:
    """Trains networks on the same data.

    Args:
        directory: where the trainings are kept, each in one of its own; None: nowhere.
        verbose: 0: nothing is shown; 1: a bar for each training.
    """

    def __init__(self, parts: Parts, task: Task, plan: Plan, seed: int, directory: Path | None, verbose: int):
        self.parts, self.task, self.plan, self.seed = parts, task, plan, seed
        self.directory, self.verbose = directory, verbose

    def with_noise(self, noisy: keras.Model, target: float) -> None:
        """Train a network with noise towards MACs, in place."""
        full = targets.full_macs(noisy)
        rates = self.plan.learning_rate, self.plan.noise_learning_rate
        optimizer = fit.optimizer(*map(keras.optimizers.Adam, rates))
        self._run(noisy, optimizer, self.plan.epochs, "training", [targets.TargetMACs(target)], full)

    def without_noise(self, model: keras.Model, name: str = "fine-tuning") -> None:
        """Fine-tune a network in place; the learning rate decays to 0."""
        epochs = self.plan.finetune_epochs
        if epochs and model.trainable_variables:
            self._run(model, self._decaying(epochs), epochs, name, [])

    def control(self, model: keras.Model) -> keras.Model:
        """A copy of the network as given, trained without noise for as many epochs in all."""
        model = graph.clone(model)
        rate = keras.optimizers.Adam(self.plan.learning_rate)
        self._run(model, rate, self.plan.epochs, "control", [])
        self.without_noise(model, "control-finetuning")
        return model

    def _decaying(self, epochs: int) -> keras.optimizers.Optimizer:
        steps = epochs * self.plan.steps
        return keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(self.plan.learning_rate, steps, 0.0))

    def _run(self, model, optimizer, epochs, name, callbacks, full=None) -> None:
        self.task.compile(model, optimizer)
        model.optimizer.build(model.trainable_variables)
        if keras.backend.backend() == "tensorflow":
            # If fit creates the variables of optimizer and metrics, within its step, it traces that step twice.
            model.test_step(next(iter(self.parts.validation.batches())))
        batches = self.parts.train.shuffled(self.plan.batch_size, self.seed)
        callbacks = [FollowEpochs(batches), keras.callbacks.TerminateOnNaN(), *callbacks]
        # The directory of a fine-tuning has a number after its name.
        progress = Progress(re.sub(r"-\d+$", "", name), self.task, self.parts.validation, full)
        if self.verbose:
            callbacks.append(progress)
        if self.directory:
            callbacks.append(Checkpoint(self.directory / name))
        averages = _fast_averages(model, epochs * self.plan.steps)
        is_stream = isinstance(self.parts.train, Stream)
        try:
            with contextlib.redirect_stdout(sys.stderr), progress, averages:  # TerminateOnNaN prints
                model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)
        except Exception as error:
            if not is_stream or isinstance(error, UserError):
                raise
            raise Refused(
                f"{name} failed ({type(error).__name__}): are all batches of data like the first, which was checked?"
            ) from error
        if not all(np.isfinite(weight).all() for weight in model.get_weights() if weight.dtype.kind == "f"):
            reasons = "use a lower learning_rate, or smaller numbers as x" + ", all of them finite" * is_stream
            raise Refused(f"the loss is no longer finite: {reasons}{' (and another directory)' * bool(self.directory)}")


@contextlib.contextmanager
def _fast_averages(model: keras.Model, steps: int) -> Iterator[None]:
    """Batch normalization with a momentum that suits the number of steps.

    With 0.999, the statistics from before a removal would still count hundreds of steps later.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    given = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = min(norm.momentum, max(0.0, 1 - 1 / (AVERAGED * steps)))
    yield
    for norm, momentum in zip(norms, given):
        norm.momentum = momentum
