"""--label_smoothing and --cutout: what keeps a network from learning CIFAR-10's training images by heart."""

import functools

from absl import flags

from utils.plumbing import data

FLAGS = flags.FLAGS


def define_flags():
    """Both, which are off."""
    flags.DEFINE_float("label_smoothing", 0.0, "The share of a label that is spread over all classes.", 0, 1)
    flags.DEFINE_integer("cutout", 0, "The side of a square in pixels that is cut out of every training image.", 0, 32)


def augmented():
    """`data.augmented` with --cutout, as `Experiment.train` takes it."""
    return functools.partial(data.augmented, cutout=FLAGS.cutout)


def options():
    """Both flags, as `structured_bp.train` takes them."""
    return {"prepare": augmented(), "label_smoothing": FLAGS.label_smoothing}
