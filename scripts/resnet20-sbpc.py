"""ResNet-20 on CIFAR-10, StructuredBPc: the KL divergence of a unit stays scaled by what the unit costs.

It goes on pruning StructuredBP's network, as VGG-like's does. Seed 0, last epoch: 10.15 % error with 3.01 times fewer
multiply-adds; 11.69 % before what is left is trained further. 14 - 8 - 2 - 2, 30 - 20 - 3 - 5, 58 - 52 - 24 - 37 units;
7 and 30 minutes on two cores of an Intel Xeon with AMX in bfloat16, part of them beside other runs.

The scale is 1 + 140 * cost at the start and 1 + 70 * cost from half of the training on, where the cost is relative to
the mean of all units: every StructuredBPc's rule. The price was chosen by the units that are left of the first stage on
all training images, with no look at the test set. Three trials were stopped in the fifth of 8 epochs: a price of 15 had
removed no unit, 50 had left 2.5 times fewer multiply-adds, and 100 3.9 times, with a fourth of the training images
wrong. 70 ended at 3.01 times. From the Original's network, with 12 epochs, a price of 30 had left 1.7 times in the
ninth.

The row before this one started from the Original, with 90 times the root of the cost relative to the cheapest unit,
which fell to 10 times: 10.63 % at 3.54x, 14.66 % before the second stage.
"""

import functools

from absl import flags

from keras_sbp.nets import resnet20
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=8, batch_size=125, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="price=70", kl_start="price=140", shrink_every=2)
retraining.define_flags(epochs=40, learning_rate=0.1, weight_decay=5e-4)
schedule.define_width()
# The shares of the training at which learning rates have risen from 0 and begin to fall to 0.
COURSE = (0.1, 0.2)


def main():
    build = functools.partial(resnet20.resnet20, width=FLAGS.width)
    run = experiment.Experiment(
        schedule.network_name("ResNet-20"), "StructuredBPc", build, resnet20.units, data.standardised
    )
    start = FLAGS.checkpoint or experiment.pretrained("resnet20-sbp", run.folder)
    counts = experiment.units_in(start, run)
    structured_bp.in_two_stages(run, start, course=COURSE, counts=counts, prepare=data.augmented)


if __name__ == "__main__":
    command_line.run(main)
