"""SSL as the scripts train it: stochastic gradient descent, and the group lasso after each step or each epoch."""

import functools

from absl import flags

from keras_sbp.layers import ssl
from keras_sbp.utils import training
from keras_sbp.utils.training.updates import nesterov

FLAGS = flags.FLAGS


def train(run, model, strength, *, prepare=None):
    """Train a network to the last epoch, as the flags say, with the group lasso after each step.

    Args:
        run: the `Experiment`.
        model: the network.
        strength: from a layer to the lasso's strength for every image, in nats.
        prepare: of `Experiment.train`.
    Returns:
        The trained network, less the units that --shrink_every took out.
    """
    # SGD's rate is meant for the mean over the images, and the bound is a sum.
    count = len(run.train_set.labels)
    updates = training.Updates(
        lambda variable: FLAGS.learning_rate / count,
        optimizer=ssl.sgd,
        proximal=ssl.proximal_step(lambda layer: count * strength(layer)),
    )
    objective = training.Objective(weight_decay=FLAGS.weight_decay)
    return run.train(
        model, objective, updates, prepare=prepare, live_units=ssl.live_units, shrink_every=FLAGS.shrink_every
    )


def train_normalised(run, model, share, *, course, prepare, label_smoothing):
    """Train a network with batch normalisation put back in, its rows shorter after every epoch: `ssl.shrink_rows`.

    Args:
        run: the `Experiment`.
        model: the network, its batch normalisation in its convolutions.
        share: of `ssl.shrink_rows`.
        course: of `training.Updates`.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
    Returns:
        As `train`.
    """
    rate = FLAGS.learning_rate / len(run.train_set.labels)
    return run.train(
        run.normalised(model),
        training.Objective(weight_decay=FLAGS.weight_decay, label_smoothing=label_smoothing),
        training.Updates(lambda variable: rate, *course, nesterov),
        prepare=prepare,
        live_units=ssl.used_inputs,
        after_epoch=functools.partial(ssl.shrink_rows, fraction=share),
        shrink_every=FLAGS.shrink_every,
    )
