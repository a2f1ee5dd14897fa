"""What `keras-sbp prune` does once its arguments are known to be good."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.io import checkpoint, data, networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting
from keras_sbp.utils.tool import files, models, sizes
from keras_sbp.utils.tool.prune import prune as prune_model
from keras_sbp.utils.tool.refusal import FULL, Refused
from keras_sbp.utils.tool.report import Report


def prune(options: argparse.Namespace, folder: Path) -> None:
    """Prune a network as asked for, and say where it is."""
    with keras.saving.custom_object_scope(models.custom_objects(options.custom_objects)):
        _prune(options, folder)


def _prune(options: argparse.Namespace, folder: Path) -> None:
    keras.utils.set_random_seed(options.seed)
    model = models.load(options.network) if options.network else None
    given = _data(options, model.input_shape[1:] if model else (32, 32, 3))
    if model is None:
        shape = given.train[0].shape[1:]
        model = models.application(options.model, shape, _classes(given))
    if options.checkpoint:
        _load_weights(model, options.checkpoint)
    if options.multiple_of > 1:
        _padded(model, options.multiple_of)  # where it cannot be done, that is said before the training
    goal = {name: getattr(options, name) for name in ("target", "target_latency", "max_drop")}
    named = ("epochs", "finetune_epochs", "batch_size", "learning_rate", "noise_learning_rate", "exclude", "seed")
    settings = {name: getattr(options, name) for name in (*named, "loss", "control")}
    smaller, report = prune_model(
        model, given.train, **goal, **settings, validation_data=given.validation, test_data=given.test, directory=folder
    )
    print(report)
    if not report.usable:
        raise UserError(f"{options.output} is not written: {report.warnings[-1]}")
    if options.multiple_of > 1:
        smaller = _padded(smaller, options.multiple_of)
        print(f"\nwritten with units padded to multiples of {options.multiple_of}{_macs(model, smaller, report)}")
    _save(smaller, options.output)
    print(f"\n{options.output}: keras.models.load_model opens it; {folder}/report.png shows what is left")
    print(f"for another target of the same training: change --target and --output, add --checkpoints_dir={folder}")


def _macs(model: keras.Model, smaller: keras.Model, report: Report) -> str:
    """The MACs of the network that is written, as far as they are known."""
    if sizes.has_any_size(smaller):
        return ""
    macs = counting.multiply_adds(smaller)
    # A ratio would leave out what is not counted; the report names it.
    return f": {macs:,} MACs" + ("" if report.uncounted else f", {counting.multiply_adds(model) / macs:.2f}x fewer")


def _data(options: argparse.Namespace, shape: tuple[int | None, ...]) -> files.Data:
    if options.data is None:
        return _digits(shape)
    # Images that do not fit in memory are in a temporary file, which is unlinked at once.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(options.output))) as cache:
        return files.read(options.data, shape, Path(cache))


def _digits(shape: tuple[int | None, ...]) -> files.Data:
    """scikit-learn's digits: gray, or padded and in three colors."""
    parts = [data.load("digits", "", split) for split in ("train", "test")]
    if shape not in ((28, 28, 1), (32, 32, 3)):
        raise Refused(f"without --data it takes a network of (28, 28, 1), and this one reads {shape}: give --data")
    pairs = []
    for images, labels in parts:
        x = np.asarray(images).astype(np.float32) / 255
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, -1) if shape == (32, 32, 3) else x
        pairs.append((x, np.asarray(labels)))
    return files.Data(pairs[0], None, pairs[1])


def _classes(given: files.Data) -> int:
    y = given.train[1]
    return y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else int(y.max()) + 1


def _load_weights(model: keras.Model, path: str) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # whatever a damaged file makes Keras raise
        reason = " ".join(str(error).split())[: models.LONGEST_REASON]
        raise Refused(f"{path} has no weights for {model.name} ({reason}): give a file of this network") from None


def _padded(model: keras.Model, multiple: int) -> keras.Model:
    try:
        return pruning.pad_filters(model, multiple)
    except ValueError as error:
        raise Refused(str(error)) from None


def _save(model: keras.Model, path: str) -> None:
    """Write the network, whole or not at all."""
    try:
        content = networks.content(model)
        checkpoint.write(os.path.abspath(path), lambda file: file.write(content))
    except OSError as error:
        print(f"{path} is not written", file=sys.stderr)
        what = "make room; the same command continues from there" if error.errno in FULL else "choose another --output"
        raise UserError(f"cannot write {path} ({error.strerror or error}): {what}") from None
