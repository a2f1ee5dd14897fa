"""From a trained network, data and a target to a smaller network and a report."""

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import fit
from keras_sbp.utils.tool import choice, examples, labels, measure, plan, run, sizes, tasks, warn
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.report import Report
from keras_sbp.utils.tool.training import Trainer

# Layers that a message names, with why they keep their units.
MOST_REASONS = 6


def prune(
    model: keras.Model, data: Any, target: float | None = None, *,
    target_latency: float | str | None = None, max_drop: float | None = None, validation_data: Any = None,
    test_data: Any = None, loss: Any = None, epochs: int | None = None,
    finetune_epochs: int | None = None, batch_size: int | None = None, learning_rate: float = 1e-3,
    noise_learning_rate: float | None = None, exclude: Sequence[str] = (), seed: int = 0,
    directory: str | os.PathLike | None = None, control: bool = False, verbose: int = 1,
) -> tuple[keras.Model, Report]:  # fmt: skip
    """Make a trained network smaller: train it with noise, remove the units that do least, and fine-tune the rest.

        smaller, report = sbp.prune(model, (x, y), target=3)

    Args:
        model: functional, Sequential, or a subclass that can be opened; with one output, trained. How it was compiled
            says what it is for: classes (by softmax or logits), one label (a sigmoid), several labels, or regression.
            It stays as it is.
        data: (x, y), arrays of any dtype; or a tf.data.Dataset or keras PyDataset that yields batches (x, y).
        target: how many times fewer MACs, such as 3.
        target_latency: in LiteRT, for one example on one thread: milliseconds, or "2x" for twice as fast.
        max_drop: how much worse the network may get on the validation data, in points of accuracy; for a regression, in
            percent of the loss. Of the three, give one; default: max_drop=1.
        validation_data, test_data: as `data`. Choices are made on the first, the report is about the second. Default: a
            tenth each of the arrays, drawn from every class.
        loss: in place of the one that the model was compiled with.
        epochs, finetune_epochs: with noise, by default 20, more if those are under 1,500 steps; and without, a sixth of
            that.
        batch_size: of arrays. Default: 64, less for few examples.
        learning_rate, noise_learning_rate: Adam's. Of the noise, by default 0.02, more for fewer than 1,500 steps.
        exclude: names of layers that keep all their units.
        seed: of the splits, the order of the examples and the noise. The backend's global seed is set, too.
        directory: keeps the training, so that the same call continues after a kill, and the same call with another
            target takes its units from the same training; also report.json, .txt and .png.
        control: also train the network without noise for as long, to compare with.
        verbose: 0: nothing is printed.
    Returns:
        The smaller network, of stock Keras layers, not compiled; and the report.
    Raises:
        ValueError: before anything is trained, if the model, the data or the target cannot be used; one line says why.
        UserError: `directory` cannot be written.
    """
    goal = choice.goal(target, target_latency, max_drop)
    exclude = exclude or ()
    model = _with_graph(model)
    _check(model, exclude)
    with _seeded(plan.whole_number(seed, "seed", 0)):
        batch_size = None if batch_size is None else plan.whole_number(batch_size, "batch_size", 1)
        given = examples.part(data, "data", batch_size, verbose)
        task = tasks.of(model, given, loss)
        others = (validation_data, "validation_data"), (test_data, "test_data")
        read = (part if part is None else examples.part(part, name, batch_size, verbose) for part, name in others)
        found = [given, *read]
        sized = sizes.fixed(model, [part for part in found if part])
        train, validation, test = (part and labels.fitted(task, part, sized.output_shape[1:]) for part in found)
        stratified = len(model.output_shape) == 2 and _has_classes(task, train)
        parts = examples.split(train, validation, test, seed, stratified)
        planned = plan.of(parts, epochs, finetune_epochs, batch_size, learning_rate, noise_learning_rate)
        call = _Pruning(sized, parts, task, planned, tuple(exclude), seed, verbose)
        smaller, report = call.run(goal, directory, control)
        return smaller if sized is model else sizes.like(smaller, model, next(iter(parts.test.batches()))[0]), report


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What is drawn follows from the seed; the generators of `random` and `numpy.random` are the caller's, and stay."""
    states = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _with_graph(model: keras.Model) -> keras.Model:
    """The model; if it is a subclass of keras.Model that has been called on data, a functional one that computes the
    same, compiled with its loss.

    Raises:
        Refused: there is none.
    """
    own = isinstance(model, keras.Model) and keras_private.functional(model) is None
    if not own or isinstance(model, keras.Sequential):
        return model
    try:
        pruning.graph.check_class(model)
        opened = pruning.graph.flatten_nested(model)
    except ValueError as error:
        raise Refused(str(error)) from None
    if model.compiled:
        opened.compile(loss=model.loss, run_eagerly=model.run_eagerly)
    return opened


def _has_classes(task: tasks.Task, part: examples.Arrays | examples.Stream) -> bool:
    """Whether labels are classes: those of one sigmoid may be probabilities. Not asked of a stream."""
    if task.kind != tasks.BINARY or isinstance(part, examples.Stream):
        return task.kind == tasks.CLASSES
    return bool((part.y == np.rint(part.y)).all())


def _check(model: keras.Model, exclude: Sequence[str]) -> None:
    """Refuse what is no network that could be pruned, whatever the data."""
    if not isinstance(model, keras.Model):
        raise Refused(f"model is a {type(model).__name__}: give a keras.Model, such as keras.models.load_model returns")
    if keras_private.functional(model) is None:
        raise Refused(f"{model.name} has no graph: give a functional model, or a Sequential one that is built")
    if len(model.outputs) != 1:
        raise Refused(f"{model.name} has {len(model.outputs)} outputs: give a model with the one that matters")
    if isinstance(exclude, str) or not all(isinstance(name, str) for name in exclude):
        raise Refused(f"exclude={exclude!r}: give a list of names of layers")


class _Pruning(NamedTuple):
    """The arguments of `prune`, checked one by one."""

    model: keras.Model
    parts: examples.Parts
    task: tasks.Task
    plan: plan.Plan
    exclude: tuple[str, ...]
    seed: int
    verbose: int

    def run(self, goal: choice.Goal, directory: str | os.PathLike | None, control: bool) -> tuple[keras.Model, Report]:
        model, parts, task = self.model, self.parts, self.task
        noisy = with_noise(model, parts.train.count, self.exclude)
        warnings = [*self.plan.warnings, *warn.of_data(model, parts), *warn.of_classes(task, parts, goal)]
        before = measure.network(model, task, parts.test)
        warnings += warn.of_score(task, before[1])
        goal = goal.with_macs(model, noisy, parts)
        for warning in warnings if self.verbose else ():
            print(f"warning: {warning}", file=sys.stderr)
        settings = {"plan": self.plan._asdict(), "seed": self.seed, "exclude": list(self.exclude)}
        settings["loss"] = task.loss_settings
        folder = run.open_directory(directory, settings, model, parts, goal)
        trainer = Trainer(parts, task, self.plan, self.seed, folder, self.verbose)
        run.train_once(trainer, noisy, goal, folder)
        chosen = choice.choose(goal, noisy, trainer, model)
        smaller = chosen.smaller
        compared = trainer.control(model) if control else None
        report = measure.report(model, smaller, compared, task, parts, goal, chosen, before, self.exclude)
        report.settings, report.warnings = settings, warnings + report.warnings
        if folder:
            run.save_report(report, folder)
        return smaller, report


def with_noise(model: keras.Model, count: int, exclude: Sequence[str]) -> keras.Model:
    """The network with noise, of which no unit is dead yet.

    Raises:
        Refused: no unit can be removed, or there is noise already.
    """
    try:
        if fit.noise_layers(model):
            raise Refused(f"{model.name} has noise layers already: give the network that insert was called on")
        # Which units are dead is decided once the training is done.
        noisy = pruning.insert(model, 1 / count, exclude, threshold=0.0)
        why = pruning.unprunable(model, exclude)
    except ValueError as error:
        raise Refused(str(error)) from None
    if not fit.noise_layers(noisy):
        reasons = [f"{name}: {reason}" for name, reason in why.items()] or ["it has no layers with units"]
        more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
        raise Refused(f"nothing can be removed from {model.name}: {'; '.join(reasons[:MOST_REASONS])}{more}")
    return noisy
