"""Networks from files: what a file claims is checked before memory is taken for it."""

import math
import os
import tempfile
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.io.command_line import UserError


def load(path):
    """The model of a .keras file, not compiled.

    Raises:
        UserError: it is not there, is damaged, claims more than it holds, or holds code.
    """
    if not os.path.isfile(path):
        raise UserError(
            f"no network at {path}: give a .keras file, or the folder of a run that is done; how to make a network "
            "that git does not hold is in checkpoints/README.md"
        )
    try:
        _check_weights(checkpoint.members(path)["config.json"], os.path.getsize(path))
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes Keras raise
        raise UserError(f"{path} cannot be read as a Keras model ({error}): give another, or make it again") from None


def content(model, half=False):
    """The bytes of a model's .keras file; `half`: its weights as float16, which Keras reads into a float32 model."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/network.keras")
        if half:
            _halve(f"{folder}/network.keras", folder)
        with open(f"{folder}/network.keras", "rb") as file:
            return file.read()


def _halve(path, folder):
    """Let the weights of a .keras file be float16; `folder` is for what is in between."""
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


def from_config(config, size):
    """The model of a config in JSON, of at most `size` bytes of weights.

    Raises:
        ValueError and whatever else Keras raises: it is damaged, or claims more than it holds.
    """
    _check_weights(config, size)
    return keras.models.model_from_json(config)


def _check_weights(config, size):
    # In a graph of its own, where weights have a shape and take no memory.
    with tf.Graph().as_default():
        weights = keras.models.model_from_json(config).weights
    # A file may hold them as float16.
    claimed = sum(math.prod(weight.shape) * min(2, tf.as_dtype(weight.dtype).size) for weight in weights)
    if claimed > size:
        raise ValueError(f"{size} bytes claim to hold {claimed} of weights")
