"""Steps of training for tests: the settings that most of them share, each of which a test may change."""

import functools
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_sbp.utils import training
from keras_sbp.utils.io import data, preprocessing


def steps(
    train_set: data.Images,
    *,
    preprocess: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = preprocessing.scale,
    batch_size: int = 100,
    seed: int = 0,
    epochs: int = 2,
    strategy: tf.distribute.Strategy | None = None,
    kl: Callable[[keras.Model, tf.Tensor], tf.Tensor] | None = None,
    weight_decay: float = 0.0,
    label_smoothing: float = 0.0,
    teacher: keras.Model | None = None,
    soft_labels: float = 0.0,
    rate: Callable[[keras.Variable], float] = lambda variable: 1e-2,
    **updates: Any,
) -> Callable[[keras.Model], training.Step]:
    """Returns a function that makes the `training.Step` of a network on these images."""
    strategy = strategy or tf.distribute.get_strategy()
    return functools.partial(
        training.Step,
        batches=training.Batches(data.Images(*train_set), preprocess, batch_size, seed, strategy),
        objective=training.Objective(kl, weight_decay, label_smoothing, teacher=teacher, soft_labels=soft_labels),
        updates=training.Updates(rate, **updates),
        epochs=epochs,
        strategy=strategy,
    )


def train(
    model: keras.Model,
    make_step: Callable[[keras.Model], training.Step],
    directory: str | os.PathLike,
    **options: Any,
) -> keras.Model:
    """Trains a network by `training.train` on one tower, and returns it."""
    return training.train(model, make_step, tf.distribute.get_strategy(), directory, **options)[0]
