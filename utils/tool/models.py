"""Loading networks: .keras and .h5 files, also with custom layers and losses."""

import contextlib
import difflib
import json
import os
import runpy
import zipfile
from typing import Any

import h5py
import keras

from keras_sbp.utils.io import networks
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.tool.refusal import Refused

# How much of Keras's error message is shown: it may hold a whole config.
LONGEST_REASON = 160


def load(path: str) -> keras.Model:
    """A network, compiled as it was saved; with its loss alone if a metric or the optimizer is not known here; not
    compiled if the loss is not known either.

    Args:
        path: a .keras or .h5 file.
    Raises:
        Refused: the network cannot be read.
    """
    if not os.path.isfile(path):
        raise Refused(f"no network at {path}: give a .keras or .h5 file")
    try:
        is_h5 = _starts_with(path, b"\x89HDF")
        if is_h5 and "model_config" not in _attributes(path):
            raise Refused(f'{path} has weights only: save the model itself, with model.save("model.keras")')
        # Checks what the file claims before memory is taken for it.
        plain = keras.models.load_model(path, compile=False) if is_h5 else networks.load(path)
        with contextlib.suppress(Exception):  # a loss or metric that is not known here
            compiled = keras.models.load_model(path, compile=True)
            plain = compiled if compiled.compiled else plain
        if not plain.compiled:
            with contextlib.suppress(Exception):  # the loss is not known, or there is none
                plain.compile(loss=_saved_loss(path, is_h5))
    except Exception as error:  # whatever a damaged file makes Keras raise
        reason = " ".join(str(error).split())
        if "Could not locate" in reason or "Unknown layer" in reason:
            raise Refused(
                f"{path} has layers of its own ({_class_of(reason)}): name the Python file that defines them with "
                "--custom_objects=FILE.py"
            ) from None
        if isinstance(error, UserError):
            raise
        raise Refused(f"cannot read {path} as a Keras model ({reason[:LONGEST_REASON]}): save it again") from None
    if not plain.built:
        raise Refused(f"{path} is not built: give its first layer an Input, or call it once, before saving")
    return plain


def _saved_loss(path: str, is_h5: bool) -> Any:
    """The loss of a file, without what else the network was compiled with.

    Raises:
        Exception, of any kind: there is none, or it is not known here.
    """
    if is_h5:
        config = json.loads(_attributes(path)["training_config"])
    else:
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))["compile_config"]
    return _deserialized(config["loss"])


def _deserialized(config: Any) -> Any:
    """The loss of a config, or the losses of one for each output."""
    if isinstance(config, dict) and "class_name" not in config:
        return {name: _deserialized(each) for name, each in config.items()}
    if isinstance(config, list):
        return [_deserialized(each) for each in config]
    return keras.losses.get(config)


def application(name: str, shape: tuple[int, ...], classes: int) -> keras.Model:
    """A network of keras.applications with random weights.

    Raises:
        Refused: there is none of that name, or not for such examples.
    """
    build = getattr(keras.applications, name, None)
    if not name[:1].isupper() or not callable(build):
        names = [each for each in dir(keras.applications) if each[0].isupper()]
        similar = difflib.get_close_matches(name, names) or ["MobileNetV2", "ResNet50"]
        raise Refused(f"keras.applications has no {name}: choose another, such as {' or '.join(similar)}")
    try:
        return build(weights=None, input_shape=shape, classes=classes)
    except ValueError as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise Refused(f"{name} does not take examples of {shape} ({reason}): choose another --model") from None


def custom_objects(path: str | None) -> dict[str, Any]:
    """The classes and functions that a Python file defines, which is run; none if there is no file.

    Raises:
        Refused: the file fails.
    """
    if path is None:
        return {}
    try:
        names = runpy.run_path(path, run_name="custom_objects")
    except Exception as error:  # whatever somebody's code raises
        raise Refused(f"--custom_objects={path} fails ({type(error).__name__}: {error}): mend it") from None
    return {name: value for name, value in names.items() if callable(value) and not name.startswith("__")}


def _attributes(path: str) -> dict[str, Any]:
    with h5py.File(path) as file:
        return dict(file.attrs)


def _starts_with(path: str, start: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def _class_of(reason: str) -> str:
    words = reason.replace("'", " ' ").split()
    return next((words[number + 1] for number, word in enumerate(words[:-1]) if word == "'"), "unknown")
