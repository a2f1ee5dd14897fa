"""The second stage of a method that has removed units: training what is left of the network, without noise."""

from absl import flags

from keras_sbp.utils import training
from keras_sbp.utils.experiment.flags import define_finetune_flags
from keras_sbp.utils.training import updates

FLAGS = flags.FLAGS


def define_flags(*, epochs, learning_rate, weight_decay):
    """The flags of `retrain`."""
    define_finetune_flags(epochs, learning_rate)
    flags.DEFINE_float("finetune_weight_decay", weight_decay, "As --weight_decay, of the smaller network.", 0)


def retrain(run, model, *, course, prepare, label_smoothing=0.0):
    """Train what is left of a network for --finetune_epochs, with batch normalisation put back and Nesterov's momentum.

    Args:
        run: the `Experiment`.
        model: the network as its method trained it.
        course: of `training.Updates`.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
    Returns:
        As `Experiment.finetune`.
    """
    # The bound is a sum over the images, and a rate of SGD is meant for their mean.
    rate = FLAGS.finetune_learning_rate / len(run.train_set.labels)
    return run.finetune(
        model,
        prepare=prepare,
        objective=training.Objective(weight_decay=FLAGS.finetune_weight_decay, label_smoothing=label_smoothing),
        updates=training.Updates(lambda variable: rate, *course, updates.nesterov),
        normalise=True,
    )
