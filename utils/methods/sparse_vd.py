"""SparseVD as the scripts train it: its flags, and what they mean for learning rates and the bound."""

import numpy as np
from absl import flags

from keras_sbp.layers import sparse_vd
from keras_sbp.layers.ssl import weighted
from keras_sbp.utils import pruning, training

FLAGS = flags.FLAGS


def define_flags(*, noise_learning_rate, warm_up=1.0):
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


def rate(variable):
    """The learning rate of a variable."""
    return FLAGS.noise_learning_rate if variable.name == "log_sigma2" else FLAGS.learning_rate


def start_from(model, original):
    """Give a network with noise on its weights those of a network without, and a noise of a fiftieth of their power.

    Every filter gets length 1. Batch normalisation makes the length free, and a learning rate and a noise then mean the
    same in every layer.

    Args:
        model: a network with noise, its layers those of `layers.sparse_vd`, batch normalisation after a convolution
            NAME called NAME_norm.
        original: the same network without noise.
    """
    weights = {variable.path: variable for variable in original.weights}
    for variable in model.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    for layer in sparse_vd.layers(model):
        if isinstance(layer, sparse_vd.Conv2D):
            _of_length_1(layer, model.get_layer(f"{layer.name}_norm"))
        power = np.mean(np.square(layer.kernel))
        layer.log_sigma2.assign(np.full(layer.kernel.shape, np.log(power / 50)))


def _of_length_1(layer, norm):
    """Let every filter of a convolution have length 1, and the batch normalisation after it give the same."""
    length = np.linalg.norm(np.reshape(layer.kernel, (-1, layer.filters)), axis=0)
    for variable, power in ((layer.kernel, 1), (layer.bias, 1), (norm.moving_mean, 1), (norm.moving_variance, 2)):
        variable.assign(variable / length**power)


def rewind(model, original):
    """Let a network read the units only that SparseVD has left, with the weights that training started from, in place.

    "Weight rewinding": Renda, Frankle, Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR
    2020. The weights that SparseVD leaves are few.

    Args:
        model: as `train` returns it, with all its units.
        original: the network of `start_from`: the weights that lead from a unit that is gone become 0.
    """
    living = pruning.Liveness(model, {})
    for layer in weighted(original):
        read = living.kept_units(model.get_layer(layer.name).input)
        layer.kernel.assign(layer.kernel * np.isin(np.arange(layer.kernel.shape[-2]), read)[:, None])


def train(run, model, *, course=training.Updates.course, prepare=None, label_smoothing=0.0, shrink_every=0):
    """Train a network with noise on its weights to the last epoch, on the bound and at the rates that the flags say.

    Args:
        run: the `Experiment`.
        model: the network, its layers those of `layers.sparse_vd`.
        course: of `training.Updates`.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
        shrink_every: of `training.train`.
    Returns:
        The trained network, less the units that went on the way.
    """
    return run.train(
        model,
        training.Objective(sparse_vd.kl(FLAGS.warm_up), FLAGS.weight_decay, label_smoothing),
        training.Updates(rate, course),
        prepare=prepare,
        alive=sparse_vd.alive,
        shrink_every=shrink_every,
    )
