"""StructuredBP as the scripts train it: its flags, and what they mean for layers, learning rates and the bound."""

import sys

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import CRITERIA, SBP, parameters
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import retraining
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS
BY_PRICE = "price="


def define_flags(*, noise_learning_rate, kl_scale, kl_start=None, shrink_every=5):
    """StructuredBP's own hyperparameters."""
    flags.DEFINE_float(
        "noise_learning_rate",
        noise_learning_rate,
        "Adam's rate for mu and log sigma, with the schedule of the weights'.",
        lower_bound=0,
    )
    flags.DEFINE_list(
        "kl_scale",
        kl_scale,
        "What a unit's KL divergence is multiplied by: a number for each layer of noise, or one for all; 'price=4': 1 + "
        "4 times the multiply-adds that go when the unit goes, relative to the mean of all units.",
    )
    flags.DEFINE_list(
        "kl_start",
        kl_start,
        "The factors at the start, given as for --kl_scale; they change linearly to --kl_scale over the first half of "
        "the training. Empty: --kl_scale throughout.",
    )
    flags.DEFINE_float("log_sigma", -5.0, "Where log sigma starts.", lower_bound=-20, upper_bound=5)
    flags.DEFINE_enum(
        "rule",
        "snr",
        CRITERIA,
        "Which units are taken out. snr: those at or under --snr_threshold. evidence: those with which the evidence is "
        "at most e times the evidence without them (BMRS).",
    )
    flags.DEFINE_float("snr_threshold", 1.0, "Units whose signal-to-noise ratio is at most this are taken out.", 0)
    training.define_shrinking_flag(shrink_every)


def unit(name):
    """The layer of noise after the units of that name."""
    return SBP(threshold=FLAGS.snr_threshold, criterion=FLAGS.rule, log_sigma=FLAGS.log_sigma, name=name)


def rate(variable):
    """The learning rate of a variable."""
    return FLAGS.noise_learning_rate if variable.name in ("mu", "log_sigma") else FLAGS.learning_rate


def train(run, model, *, rate=rate, course=(0.0, 0.5), prepare=None, label_smoothing=0.0):
    """Train a network with noise to the last epoch, on the bound and at the rates that the flags say.

    Args:
        run: the `Experiment`.
        model: the network with all its units.
        rate, course: of `training.Updates`.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
    Returns:
        The trained network, less the units that --shrink_every took out.
    """
    objective = training.Objective(kl(model), FLAGS.weight_decay, label_smoothing)
    how = training.Updates(rate, *course)
    return run.train(model, objective, how, prepare=prepare, shrink_every=FLAGS.shrink_every)


def in_two_stages(run, start, *, course, prepare, label_smoothing=0.0, counts=None):
    """Train a network with noise, then what is left of it without noise, and print the row.

    Batch normalisation is frozen while there is noise, being part of the pretrained convolutions.

    Args:
        run: the `Experiment`.
        start: the run's folder, or the .keras file, whose weights to start from.
        course: of `training.Updates`, of either stage.
        prepare: of `Experiment.train`.
        label_smoothing: of `training.Objective`.
        counts: the units of the network that it starts from, if that is pruned.
    """
    model = run.build(unit=unit, norm=keras.layers.Identity, counts=counts)
    experiment.set_weights(model, start)
    model = train(run, model, course=course, prepare=prepare, label_smoothing=label_smoothing)
    tuned = retraining.retrain(run, model, course=course, prepare=prepare, label_smoothing=label_smoothing)
    run.finish(model, tuned)


def kl(model):
    """The KL divergence of all units, each scaled as --kl_scale says, as `training.Objective` takes it.

    Args:
        model: the network with all its units; what a unit costs is counted on it.
    Returns:
        From the network in training, which may have fewer units, to a scalar tensor in nats.
    """
    costs = counting.relative_costs(model)
    end = _kl_scales("kl_scale", costs)
    start = _kl_scales("kl_start", costs) if FLAGS.kl_start else end

    def scaled_kl(model, done):
        layers = [layer for layer in model.layers if layer.name in end]
        share = tf.minimum(2 * done, 1.0)
        scales = [(1 - share) * start[layer.name] + share * end[layer.name] for layer in layers]
        scale = tf.concat([tf.fill(layer.mu.shape, scale) for layer, scale in zip(layers, scales)], 0)
        return tf.reduce_sum(scale * truncated_log_normal.kl_divergence(*parameters(layers)))

    return scaled_kl


def _kl_scales(flag, costs):
    """{noise layer's name: factor} for --kl_scale or --kl_start."""
    given = FLAGS[flag].value
    try:
        scales = _scales(given, np.array(list(costs.values()), float))
    except ValueError:
        scales = np.array([])
    if scales.shape != (len(costs),) or not np.isfinite(scales).all() or (scales < 0).any():
        raise UserError(
            f"--{flag}={','.join(given)} is neither 'price=4' nor one number >= 0 nor {len(costs)} of them, for "
            f"{', '.join(costs)}"
        )
    print(f"{flag}:", ", ".join(f"{scale:.4g} ({name})" for name, scale in zip(costs, scales)), file=sys.stderr)
    return {name: float(scale) for name, scale in zip(costs, scales)}


def _scales(given, costs):
    """The factors that a flag's list gives layers whose units cost so much; ValueError if it is none."""
    given = ",".join(given)
    if given.startswith(BY_PRICE):
        return 1 + float(given.removeprefix(BY_PRICE)) * costs
    scales = np.array([float(scale) for scale in given.split(",")])
    return np.repeat(scales, len(costs)) if len(scales) == 1 else scales
