"""ResNet-20 on CIFAR-10, the Original: the network that the others are measured against and start from.

Seed 0, last epoch: 8.40 % error (He et al., with shortcuts without weights and 164 epochs: 8.75). In bfloat16 it takes
12 to 13 steps a second on two cores, which is 55 minutes; the published run had another beside it and took 97.

Tried on held-out images, 24 epochs (rate; weight decay): 0.2; 5e-4: 9.94 %. 0.1; 2e-4: 10.54 %. The 100 epochs were
chosen for the time that they take.
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
