"""VGG-like on CIFAR-10, the Original: no pruning. The other VGG-like scripts start from it.

Error, last epoch: 6.44% (seed 0; seed 1: 6.78%; paper 7.20) in 28 epochs.

    python scripts/vgglike.py --schedule=short --precision=bfloat16    # 68 minutes (seed 1), two cores, Xeon with AMX

Without --schedule=short: the authors' 200 epochs, which were not run. Trials: docs/trials.md#vgglike
"""

import functools

import keras
from absl import flags

from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import regularisation, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.training import updates

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=200, batch_size=100, learning_rate=1e-3, weight_decay=2e-5)
schedule.define_flags()
schedule.define_width()
flags.DEFINE_float("kernel_rate", 0.1, "Muon's rate for the kernels of convolutions, of the short schedule only.", 0)
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
        batch_size=500,
        learning_rate=0.125,
        weight_decay=5e-4,
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
        if variable.path.startswith("conv") and variable.name == "bias":
            return 0.0
        return FLAGS.kernel_rate if short and len(variable.shape) == 4 else learning_rate

    objective = training.Objective(
        weight_decay=FLAGS.weight_decay, growing_decay=not short, label_smoothing=FLAGS.label_smoothing
    )
    optimizer = updates.muon if short else updates.adam
    # The authors' rates of the Original fall from half of the training on, unlike those of their StructuredBP.
    course = schedule.course() if short else training.Updates.course
    model = run.train(model, objective, training.Updates(rate, course, optimizer), prepare=regularisation.augmented())
    run.finish(model, half=True)


if __name__ == "__main__":
    command_line.run(main)
