"""VGG-like on CIFAR-10, StructuredBPc: the KL divergence of a unit stays scaled by what the unit costs.

It goes on pruning StructuredBP's network, in which an epoch takes a third of the time and what a unit costs has
changed. In the short schedule what is left is trained on; see vgglike-sbp.py. Seed 0: 7.49 % error (8.36 before the
second stage) with 5.19 times fewer multiply-adds; 5 and 19 minutes on two cores of an Intel Xeon with AMX in
bfloat16. Seed 1: 7.28 % (8.54) with 5.35 times fewer.

The price was chosen by the units that are left of the first stage on all training images, for 5 times fewer
multiply-adds, with no look at the test set. How many times fewer there were, and the training images that were wrong in
the last epoch: price=8, from twice that at the start, 4.80 times, 10.0 %; price=9 5.19 times, 11.2 %; price=10 5.72
times, 12.0 %. The test error of an earlier rule was known: 0.4 times the root of the cost relative to the cheapest
unit, from twice that, with 40 epochs of the second stage and from an earlier StructuredBP (6.54 %, 3.31 times fewer):
7.06 % (8.22) with 5.32 times fewer.
"""

import functools

from absl import flags

from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation, retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale="price=9")
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
schedule.define_flags()
schedule.define_width()


def main():
    schedule.take("short", epochs=8, kl_start=["price=18"], finetune_epochs=30, **schedule.SHORT)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    name = schedule.network_name("VGG-like")
    run = experiment.Experiment(name, "StructuredBPc", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike-sbp", run.folder)
    counts = experiment.units_in(start, run)
    structured_bp.in_two_stages(run, start, course=schedule.course(), counts=counts, **regularisation.options())


if __name__ == "__main__":
    command_line.run(main)
