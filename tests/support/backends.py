"""Derivatives on each backend of Keras, compiled and not."""

import contextlib

import keras
import numpy as np

BACKEND = keras.backend.backend()


def value_and_gradient(function, point, dtype, compiled):
    """The value of an elementwise function and its derivatives, as float64 arrays.

    Args:
        point: arrays, the arguments.
        compiled: whether as Keras compiles a step: by XLA, or on PyTorch not at all.
    """
    results = globals()[f"_{BACKEND}"](function, point, dtype, compiled)
    assert all(keras.backend.standardize_dtype(x.dtype) == dtype for x in results)
    return [keras.ops.convert_to_numpy(x).astype(float) for x in results]


def _tensorflow(function, point, dtype, compiled):
    import tensorflow as tf

    def evaluated(*point):
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(*point)
        return [value, *tape.gradient(value, point)]

    evaluated = tf.function(evaluated, jit_compile=True) if compiled else evaluated
    return evaluated(*(tf.constant(x, dtype) for x in point))


def _jax(function, point, dtype, compiled):
    import jax

    def evaluated(*point):
        value, pull_back = jax.vjp(function, *point)
        return [value, *pull_back(jax.numpy.ones_like(value))]

    with jax.enable_x64() if dtype == "float64" else contextlib.nullcontext():
        results = (jax.jit(evaluated) if compiled else evaluated)(*(jax.numpy.asarray(x, dtype) for x in point))
        return [np.asarray(x) for x in results]


def _torch(function, point, dtype, compiled):
    import torch

    point = [torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True) for x in point]
    value = function(*point)
    return [value, *torch.autograd.grad(value.sum(), point)]
