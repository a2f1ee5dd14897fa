"""SSL as the scripts train it: stochastic gradient descent, and the group lasso after each of its steps."""

from absl import flags

from layers import ssl
from utils import training

FLAGS = flags.FLAGS


def train(run, model, strength, *, course=training.Updates.course, prepare=None, label_smoothing=0.0):
    """Train a network to the last epoch, as the flags say.

    Args:
        run: the `Experiment`.
        model: the network.
        strength: from a layer to its strength, an image.
        course: of `training.Updates`.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
    Returns:
        The trained network, less the units that --shrink_every took out.
    """
    # SGD's rate is meant for the mean over the images, and the bound is a sum.
    count = len(run.train_set.labels)
    updates = training.Updates(
        lambda variable: FLAGS.learning_rate / count,
        course,
        optimizer=ssl.sgd,
        proximal=ssl.proximal(lambda layer: count * strength(layer)),
    )
    objective = training.Objective(weight_decay=FLAGS.weight_decay, label_smoothing=label_smoothing)
    return run.train(model, objective, updates, prepare=prepare, alive=ssl.alive, shrink_every=FLAGS.shrink_every)
