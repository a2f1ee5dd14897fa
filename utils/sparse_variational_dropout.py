"""SparseVD as the scripts train it: its flags, and what they mean for learning rates and the bound."""

from absl import flags

from layers import sparse_vd
from utils import training

FLAGS = flags.FLAGS


def define_flags(*, noise_learning_rate, warm_up=1.0, shrink_every=0):
    """SparseVD's own hyperparameters."""
    flags.DEFINE_float(
        "noise_learning_rate", noise_learning_rate, "Adam's rate for log sigma^2, with the schedule of the weights'.", 0
    )
    flags.DEFINE_float(
        "warm_up",
        warm_up,
        "The share of the training in which the weight of the KL divergence grows from 0 to 1 on a line; above 1 it "
        "stops short: with 4 it ends at a quarter.",
        0,
    )
    training.define_shrinking_flag(shrink_every)


def rate(variable):
    """The learning rate of a variable."""
    return FLAGS.noise_learning_rate if variable.name == "log_sigma2" else FLAGS.learning_rate


def train(run, model, *, course=training.Updates.course, prepare=None):
    """Train a network with noise on its weights to the last epoch, on the bound and at the rates that the flags say.

    Args:
        run: the `Experiment`.
        model: the network, its layers those of `layers.sparse_vd`.
        course: of `training.Updates`.
        prepare: of `Experiment.train`.
    Returns:
        The trained network, less the units that --shrink_every took out.
    """
    return run.train(
        model,
        training.Objective(sparse_vd.kl(FLAGS.warm_up), FLAGS.weight_decay),
        training.Updates(rate, course),
        prepare=prepare,
        alive=sparse_vd.alive,
        shrink_every=FLAGS.shrink_every,
    )
