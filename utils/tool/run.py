"""The directory of a call of `prune`: its settings, trainings, network with noise and report."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_sbp.utils.io import checkpoint, networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.tool.choice import Goal
from keras_sbp.utils.tool.examples import Arrays, Parts
from keras_sbp.utils.tool.refusal import FULL, Refused
from keras_sbp.utils.tool.report import Report
from keras_sbp.utils.tool.training import Trainer

NOISY = "noisy.keras"


def open_directory(
    directory: str | os.PathLike | None, settings: dict[str, Any], model: keras.Model, parts: Parts, goal: Goal
) -> Path | None:
    """The directory of a run, empty or with the same one in it; None if there is to be none.

    A run that is trained may be asked for another goal: its units are taken from the same training.

    Raises:
        Refused: it holds a run with other settings.
        UserError: it cannot be written.
    """
    if directory is None:
        return None
    folder, trained = Path(directory), Path(directory) / NOISY
    ours = settings | {"model": _digest_model(model), "data": _digest_data(parts.train)}
    ours = json.loads(json.dumps({**ours, "goal": [goal.kind, goal.value]}, default=str))
    path = folder / "settings.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            theirs = json.loads(path.read_text())
            other = sorted(name for name in ours if ours[name] != theirs.get(name))
            if trained.exists():
                other = [name for name in other if name != "goal"]
            if other:
                raise Refused(
                    f"{folder} holds a run with another {' and '.join(other)}: ask for the same, or choose another "
                    "directory"
                )
            return folder
        checkpoint.write(str(path), lambda file: file.write(json.dumps(ours).encode()))
    except ValueError as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{path} is damaged ({error}): remove {folder} to start over") from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def train_once(trainer: Trainer, noisy: keras.Model, goal: Goal, folder: Path | None) -> None:
    """Train a network with noise, unless the directory has it trained."""
    if folder and (folder / NOISY).exists():
        noisy.set_weights(networks.load(folder / NOISY).get_weights())
    else:
        trainer.with_noise(noisy, goal.macs)
        if folder:
            content = networks.content(noisy)
            _write(folder, lambda: checkpoint.write(str(folder / NOISY), lambda file: file.write(content)))
    # Further layers with seeds of their own get the same ones either way.
    keras.utils.set_random_seed(trainer.seed)


def save_report(report: Report, folder: Path) -> None:
    """Write the report into the directory."""
    _write(folder, lambda: report.save(folder))


def _write(folder: Path, write) -> None:
    try:
        write()
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UserError:
    what = "make room; the same call continues" if error.errno in FULL else "choose another directory"
    return UserError(f"cannot write {folder} ({error.strerror or error}): {what}")


def _digest_model(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _digest_data(part: Any) -> str:
    """Of arrays, the labels and a thousand numbers of each example array; of a stream, its length."""
    if not isinstance(part, Arrays):
        return f"stream of {part.count}"
    digest = hashlib.sha256(np.ascontiguousarray(part.y).tobytes())
    for array in keras.tree.flatten(part.x):
        flat = array.reshape(-1)
        digest.update(np.ascontiguousarray(flat[:: max(1, flat.size // 1000)]).tobytes())
        digest.update(str(array.shape).encode())
    return digest.hexdigest()
