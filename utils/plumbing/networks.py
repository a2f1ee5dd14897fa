"""Networks from files: what a file claims is checked before memory is taken for it."""

import math
import os
import tempfile

import keras
import tensorflow as tf

from utils.plumbing import checkpoint
from utils.plumbing.command_line import UserError


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


def content(model):
    """The bytes of a model's .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/network.keras")
        with open(f"{folder}/network.keras", "rb") as file:
            return file.read()


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
    claimed = sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in weights)
    if claimed > size:
        raise ValueError(f"{size} bytes claim to hold {claimed} of weights")
