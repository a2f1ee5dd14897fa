"""VGG-like on CIFAR-10, StructuredBPc: the KL divergence of a unit scaled by what the unit costs.

By the power 0.4 of that, in the short schedule from a start at 2.5 times as much: the cost itself would outweigh the
data, with 1,700 times the cheapest unit's for a filter of the second convolution.
Not run to its end yet.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from nets import vgglike
from utils import command_line, data, experiment, schedule, structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale="17,20,15,15,11,13,11,9,10,8,5.5,5.5,4,4,1")
schedule.define_flags()
flags.DEFINE_float("width", 1.0, "k: scales the units of every layer.", lower_bound=0.02)
# Of the short schedule; see vgglike-sbp.py.
KL_START = "42,50,37,37,28,32,28,22,25,20,14,14,10,10,2.5"


def main():
    course = schedule.take(
        epochs=24, learning_rate=3e-4, noise_learning_rate=5e-2, shrink_every=1, kl_start=KL_START.split(",")
    )
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "StructuredBPc", build, vgglike.units)
    with run.strategy.scope():
        # Batch normalisation is frozen: part of the pretrained convolutions.
        model = build(unit=structured_bp.unit, norm=keras.layers.Identity)
    run.start_from(FLAGS.checkpoint or run.pretrained("vgglike"), model)
    model = run.train(
        model,
        prepare=data.augmented,
        shrink_every=FLAGS.shrink_every,
        rate=structured_bp.rate,
        schedule=course,
        kl=structured_bp.kl(model),
    )
    run.finish(model, data.standardised)


if __name__ == "__main__":
    command_line.run(main)
