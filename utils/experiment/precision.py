"""The precision in which a network is built, trained and tested, without a lasting change to anybody's policy."""

import contextlib
from collections.abc import Iterator

import keras

from keras_sbp import keras_private
from keras_sbp.utils import pruning


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Within it, layers are made for "float32" or, in mixed precision, for "bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Within it, a model computes in float32, however it is trained."""
    layers = keras_private.inner_layers(model)
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = "float32"
    try:
        with dtype_policy("float32"):
            yield
    finally:
        for layer, policy in zip(layers, before):
            layer.dtype_policy = policy


def use_bfloat16(model: keras.Model) -> None:
    """Let a model compute in bfloat16, but for its last layer, in place."""
    for layer in model.layers[:-1]:
        layer.dtype_policy = "mixed_bfloat16"


def shrink(model: keras.Model) -> keras.Model:
    """The smaller network (`pruning.shrink`), in float32, however the model is trained."""
    with in_float32(model):
        return pruning.shrink(model)
