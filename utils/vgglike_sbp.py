"""VGG-like with StructuredBP, as vgglike-sbp.py, -sbpa.py and -sbpc.py train it: they differ in what scales the KL."""

import functools

import keras
from absl import flags

from nets import vgglike
from utils import data, experiment, schedule, structured_bp

FLAGS = flags.FLAGS
# Of the short schedule, a factor a layer of noise; see lenet5-sbp.py for what such a start does. It is meant to take
# filters from block 3 on, as in the paper's row.
KL_START = "30,30,25,25,30,30,30,15,15,15,6,6,4,2,2"


def define_flags(*, kl_scale):
    """The flags of the three scripts, their defaults the paper's."""
    experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
    structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale=kl_scale)
    schedule.define_flags()
    flags.DEFINE_float("width", 1.0, "k: scales the units of every layer.", lower_bound=0.02)


def run(method, kl_start=KL_START):
    """Train VGG-like from pretrained weights as the flags say, and print the method's row.

    Args:
        kl_start: --kl_start of the short schedule.
    """
    course = schedule.take(
        epochs=16, learning_rate=3e-4, noise_learning_rate=5e-2, shrink_every=1, kl_start=kl_start.split(",")
    )
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run_ = experiment.Experiment(schedule.network("VGG-like"), method, build, vgglike.units)
    with run_.strategy.scope():
        # Batch normalisation is frozen: part of the pretrained convolutions.
        model = build(unit=structured_bp.unit, norm=keras.layers.Identity)
    run_.start_from(FLAGS.checkpoint or run_.pretrained("vgglike"), model)
    model = run_.train(
        model,
        prepare=data.augmented,
        shrink_every=FLAGS.shrink_every,
        rate=structured_bp.rate,
        schedule=course,
        kl=structured_bp.kl(model),
    )
    run_.finish(model, data.standardised)
