"""Steps of training for tests: settings that most share, each of which a test may change."""

import functools

import tensorflow as tf

from keras_sbp.utils import training
from keras_sbp.utils.io import data, preprocessing


def steps(
    train_set,
    *,
    prepare=preprocessing.scale,
    batch_size=100,
    seed=0,
    epochs=2,
    strategy=None,
    kl=None,
    weight_decay=0.0,
    label_smoothing=0.0,
    rate=lambda variable: 1e-2,
    **updates,
):
    """From a network to the `training.Step` that trains it on data.Images."""
    strategy = strategy or tf.distribute.get_strategy()
    return functools.partial(
        training.Step,
        batches=training.Batches(data.Images(*train_set), prepare, batch_size, seed, strategy),
        objective=training.Objective(kl, weight_decay, label_smoothing),
        updates=training.Updates(rate, **updates),
        epochs=epochs,
        strategy=strategy,
    )


def train(model, make, folder, **options):
    """`training.train` on one tower: the trained network."""
    return training.train(model, make, tf.distribute.get_strategy(), folder, **options)[0]
