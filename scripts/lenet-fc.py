"""Lenet-fc on MNIST, the Original: no pruning.

Error, last epoch: 1.49% (mean of ten seeds, 95% interval 1.45 to 1.53; paper 1.54); 545,000 MACs.

    python scripts/lenet-fc.py --seed=N               # N = 0 ... 9; half a minute to 2 minutes on one core
    python scripts/lenet-fc.py --schedule=paper       # the paper's settings, 200 epochs: 1.39%

With random shifts (--shift=2): 0.84%. Trials: docs/trials.md#lenet-fc
"""

from absl import flags

from keras_sbp.nets import lenet_fc
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import regularisation, schedule
from keras_sbp.utils.io import command_line, data

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=30, batch_size=128, learning_rate=1e-3, weight_decay=2e-4)
schedule.define_flags(default="short")
regularisation.define_shift()


def main():
    schedule.take("paper", epochs=200)
    run = experiment.Experiment("Lenet-fc", "Original", lenet_fc.lenet_fc, lenet_fc.units, data.scaled)
    model = run.build()
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    objective = training.Objective(weight_decay=FLAGS.weight_decay)
    how = training.Updates(lambda variable: FLAGS.learning_rate)
    model = run.train(model, objective, how, prepare=regularisation.shifted())
    run.finish(model)


if __name__ == "__main__":
    command_line.run(main)
