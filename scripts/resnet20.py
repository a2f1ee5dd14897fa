"""ResNet-20 on CIFAR-10, the Original: no pruning. The other ResNet-20 scripts start from it.

Error, last epoch: 8.40% (seed 0; He et al.: 8.75).

    python scripts/resnet20.py --precision=bfloat16       # 55 minutes on two cores with nothing else running

Trials: docs/trials.md#resnet20
"""

import functools

from absl import flags

from keras_sbp.nets import resnet20
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.training import updates

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=100, batch_size=125, learning_rate=0.2, weight_decay=5e-4)
schedule.define_width()
# The shares of the training at which the learning rate has risen from 0 and begins to fall to 0.
COURSE = (0.2, 0.2)


def main():
    build = functools.partial(resnet20.resnet20, width=FLAGS.width)
    run = experiment.Experiment(
        schedule.network_name("ResNet-20"), "Original", build, resnet20.units, data.standardised
    )
    model = run.build()
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    # The bound is a sum over the images, and a rate of SGD is meant for their mean.
    learning_rate = FLAGS.learning_rate / len(run.train_set.labels)

    def rate(variable):
        """Before batch normalisation a bias does nothing; it is there for `shrink`, which makes them one."""
        return 0.0 if variable.name == "bias" and not variable.path.startswith("logits") else learning_rate

    objective = training.Objective(weight_decay=FLAGS.weight_decay)
    how = training.Updates(rate, COURSE, updates.nesterov)
    run.finish(run.train(model, objective, how, prepare=data.augmented))


if __name__ == "__main__":
    command_line.run(main)
