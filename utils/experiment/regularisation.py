"""--label_smoothing, --cutout, --shift: what keeps a network from learning its training images by heart."""

import functools

from absl import flags

from keras_sbp.utils.io import data

FLAGS = flags.FLAGS


def define_flags():
    """CIFAR-10's, which are off."""
    flags.DEFINE_float("label_smoothing", 0.0, "The share of a label that is spread over all classes.", 0, 1)
    flags.DEFINE_integer("cutout", 0, "The side of a square in pixels that is cut out of every training image.", 0, 32)


def define_shift():
    """MNIST's, which is off."""
    flags.DEFINE_integer(
        "shift", 0, "Every training image is moved at random by up to so many pixels each way.", lower_bound=0
    )


def augmented():
    """`data.augmented` with --cutout, as `Experiment.train` takes it."""
    return functools.partial(data.augmented, cutout=FLAGS.cutout)


def shifted():
    """`data.shifted` with --shift, as `Experiment.train` takes it."""
    return functools.partial(data.shifted, pixels=FLAGS.shift) if FLAGS.shift else data.scaled


def options():
    """Label smoothing and cutout, as the methods' trainings take them: `prepare`, `label_smoothing`."""
    return {"prepare": augmented(), "label_smoothing": FLAGS.label_smoothing}
