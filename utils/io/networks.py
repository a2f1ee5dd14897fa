"""Networks in files: what a file claims to hold is checked before memory is allocated for it."""

import json
import math
import os
import tempfile
import zipfile

import h5py
import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.io.command_line import UserError


def load(path: str) -> keras.Model:
    """The model of a .keras file, not compiled.

    Raises:
        UserError: the file is missing or damaged, claims more than it holds, or holds code.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"no network at {path}: give a .keras file, or the directory of a finished run; checkpoints/README.md says "
            "how to train networks that are not in git"
        )
    try:
        _check_weights(checkpoint.members(path)["config.json"], os.path.getsize(path))
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes Keras raise
        raise UserError(f"cannot read {path} as a Keras model ({error}): give another file") from None


def content(model: keras.Model, half: bool = False) -> bytes:
    """The content of a model's .keras file.

    Args:
        half: store the weights as float16, which Keras reads into a float32 model.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/network.keras")
        if half:
            _halve(f"{folder}/network.keras", folder)
        with open(f"{folder}/network.keras", "rb") as file:
            return file.read()


def _halve(path, folder):
    """Store the weights of a .keras file as float16; `folder` is for temporary files."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        names = archive.namelist()
    with h5py.File(f"{folder}/model.weights.h5") as whole, h5py.File(f"{folder}/half.h5", "w") as halves:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                halves.require_group(name)
            else:
                halves[name] = item[...].astype(np.float16) if item.dtype == np.float32 else item[...]
            for key, value in item.attrs.items():
                halves[name].attrs[key] = value

        whole.visititems(copy)
        for key, value in whole.attrs.items():
            halves.attrs[key] = value
    os.replace(f"{folder}/half.h5", f"{folder}/model.weights.h5")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(os.path.join(folder, name), name)


def from_config(config: str, size: int) -> keras.Model:
    """The model of a config in JSON, with at most `size` bytes of weights.

    Raises:
        ValueError and whatever else Keras raises: the config is damaged, or claims more weights.
    """
    _check_weights(config, size)
    return keras.models.model_from_json(config)


def _check_weights(config, size):
    # Somebody's loss or metric may not be known here, and is not needed.
    plain = json.dumps(json.loads(config) | {"compile_config": None})
    with keras_private.no_memory():
        weights = keras.models.model_from_json(plain).weights
    # A file may hold them as float16.
    claimed = sum(math.prod(weight.shape) * min(2, np.dtype(weight.dtype).itemsize) for weight in weights)
    if claimed > size:
        raise ValueError(f"{size} bytes claim to hold {claimed} bytes of weights")
