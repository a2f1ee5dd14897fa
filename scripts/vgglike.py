"""VGG-like on CIFAR-10, the Original: the network that the others are measured against and start from.

The short schedule, seed 0: 7.09 % error (the paper 7.20 after 300 epochs); 4.8 hours on two cores in bfloat16, with
other work and pauses in them: its 15,000 steps are 2.8 hours where nothing else runs.

On held-out images, 8 epochs at k = 0.375, seed 0: 13.54 % error where convolutions start as the identity, 15.09 %
where they start at random; with offsets of batch normalisation at 16 times the rate as well, no better after 5 epochs.
Nothing else of it was tried there, nor its 30 epochs. 16 epochs from a random start, its first form, ended at 8.67 %
on the test set, which was known by then.

The paper's schedule, that of the authors' script, was not run: 200 epochs, rates that fall from the 100th on, and a
weight decay that grows to 2e-5 on a line.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from nets import vgglike
from utils import experiment, training
from utils.experiment import regularisation, schedule
from utils.plumbing import command_line, data
from utils.training import updates

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=200, batch_size=100, learning_rate=1e-3, weight_decay=2e-5)
schedule.define_flags()
schedule.define_width()
flags.DEFINE_float("dropout", 1.0, "Scales the shares that binary dropout drops; 1: the paper's, 0: none.", 0, 1.9)
regularisation.define_flags()


def unit(name):
    """Binary dropout after the units of that name, where the paper has it."""
    share = FLAGS.dropout * vgglike.DROPOUT.get(name, 0.0)
    return keras.layers.Dropout(share, name=name) if share else keras.layers.Identity(name=name)


def main():
    short = FLAGS.schedule == "short"
    schedule.take(
        "short",
        epochs=28,
        batch_size=125,
        learning_rate=0.125,
        weight_decay=1e-3,
        dropout=0.0,
        label_smoothing=0.1,
        cutout=8,
    )
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "Original", build, vgglike.units, data.standardised)
    model = run.build(unit=unit)
    if short:
        vgglike.start_as_identity(model)
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    # The bound is a sum over the images, which Adam's steps do not know, and a rate of SGD is meant for their mean.
    learning_rate = FLAGS.learning_rate / len(run.train_set.labels) if short else FLAGS.learning_rate

    def rate(variable):
        """Before batch normalisation a bias does nothing; it is there for `shrink`, which makes them one."""
        return 0.0 if variable.path.startswith("conv") and variable.name == "bias" else learning_rate

    objective = training.Objective(
        weight_decay=FLAGS.weight_decay, growing_decay=not short, label_smoothing=FLAGS.label_smoothing
    )
    optimizer = updates.nesterov if short else updates.adam
    # The authors' rates of the Original fall from half of the training on, unlike those of their StructuredBP.
    course = schedule.course() if short else training.Updates.course
    model = run.train(model, objective, training.Updates(rate, course, optimizer), prepare=regularisation.augmented())
    run.finish(model, half=True)


if __name__ == "__main__":
    command_line.run(main)
