"""LeNet5 on MNIST, the Original: the network that the others are measured against and start from.

Ten seeds, last epoch: 0.64 % error, 95 % interval 0.59 to 0.69 (the paper 0.80), 2,293,000 multiply-adds; 4 to 7
minutes on one core, on another machine and with other work beside it up to 17.

On images moved by up to 2 pixels (--shift=2), ten seeds: 0.46 %, 95 % interval 0.44 to 0.49.

The paper's settings (--schedule=paper, 200 epochs; seed 0): 0.73 %, 33 minutes. The weight decay has emptied units: the
weights of 10 first filters, 31 second ones and 464 neurons have a norm under a thousandth of their layer's largest.
"""

from absl import flags

from keras_sbp.nets import lenet5
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import regularisation, schedule
from keras_sbp.utils.io import command_line, data

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=30, batch_size=128, learning_rate=1e-3, weight_decay=5e-4)
schedule.define_flags(default="short")
regularisation.define_shift()


def main():
    schedule.take("paper", epochs=200)
    run = experiment.Experiment("LeNet5", "Original", lenet5.lenet5, lenet5.units, data.scaled)
    model = run.build()
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    objective = training.Objective(weight_decay=FLAGS.weight_decay)
    how = training.Updates(lambda variable: FLAGS.learning_rate)
    model = run.train(model, objective, how, prepare=regularisation.shifted())
    run.finish(model)


if __name__ == "__main__":
    command_line.run(main)
