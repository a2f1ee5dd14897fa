"""Networks from files: what a file claims is checked before memory is taken for it."""

import math
import os

import keras
import tensorflow as tf

from utils import checkpoint


def load(path):
    """The model of a .keras file, not compiled.

    Raises:
        ValueError and whatever else Keras raises: it is damaged, claims more than it holds, or holds code.
    """
    if not os.path.isfile(path):
        raise ValueError("it is no file")
    _check_weights(checkpoint.members(path)["config.json"], os.path.getsize(path))
    return keras.models.load_model(path, compile=False)


def from_config(config, size):
    """The model of a config in JSON, of at most `size` bytes of weights; raises as `load` does."""
    _check_weights(config, size)
    return keras.models.model_from_json(config)


def _check_weights(config, size):
    # In a graph of its own, where weights have a shape and take no memory.
    with tf.Graph().as_default():
        weights = keras.models.model_from_json(config).weights
    claimed = sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in weights)
    if claimed > size:
        raise ValueError(f"{size} bytes claim to hold {claimed} of weights")
