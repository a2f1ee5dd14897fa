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
from keras_sbp.utils.pruning import graph
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
    if folder.is_file():
        raise Refused(f"{folder} is a file: choose another directory")
    ours = settings | {"model": _digest_model(model), "data": _digest_data(parts.train)}
    ours = json.loads(json.dumps({**ours, "goal": [goal.kind, goal.value, goal.relative]}, default=str))
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
        _load_weights(noisy, folder / NOISY)
    else:
        trainer.with_noise(noisy, goal.macs)
        if folder:
            content = networks.content(noisy)
            _write(folder, lambda: checkpoint.write(str(folder / NOISY), lambda file: file.write(content)))
    # Further layers with seeds of their own get the same ones either way.
    keras.utils.set_random_seed(trainer.seed)


def _load_weights(noisy: keras.Model, path: Path) -> None:
    """Its weights alone: what layers of one's own are, only the caller knows."""
    try:
        checkpoint.members(path)
        noisy.load_weights(path)
    except Exception as error:  # whatever a damaged file makes Keras raise
        raise UserError(f"cannot read {path} ({error}): remove {path.parent} to start over") from None


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
    """Of its graph and weights. Names do not count: Keras numbers them anew for each model of a process."""
    nodes = graph.nodes(graph.flatten_nested(model))
    number = {id(tensor): index for index, node in enumerate(nodes) for tensor in node.outputs}
    structure = [
        (type(node.operation).__name__, _config(node.operation), [number[id(x)] for x in node.input_tensors])
        for node in nodes
    ]
    digest = hashlib.sha256(json.dumps(structure, default=str).encode())
    _add(digest, *model.get_weights())
    return digest.hexdigest()


def _config(operation: keras.Operation) -> Any:
    return _nameless(operation.get_config()) if isinstance(operation, keras.Layer) else None


def _nameless(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return [_nameless(value) for value in config] if isinstance(config, (list, tuple)) else config


def _digest_data(part: Any) -> str:
    """Of arrays, all of them, and which are trained on; of a stream, which may be shuffled, its size and shapes."""
    if not isinstance(part, Arrays):
        x, y = next(iter(part.batches()))
        kinds = [f"{array.shape[1:]} {array.dtype}" for array in (*keras.tree.flatten(x), y)]
        return f"stream of {part.count}: {', '.join(kinds)}"
    digest = hashlib.sha256()
    _add(digest, part.indices, part.y, *keras.tree.flatten(part.x))
    return digest.hexdigest()


def _add(digest: Any, *arrays: np.ndarray) -> None:
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        step = max(1, 2**22 // max(1, array[:1].size)) if array.ndim else 1  # not a copy of all at once
        for start in range(0, len(array) if array.ndim else 1, step):
            digest.update(np.ascontiguousarray(array[start : start + step] if array.ndim else array).tobytes())
