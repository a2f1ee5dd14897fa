"""LeNet5 on MNIST, the Original: no pruning. The other LeNet5 scripts start from it.

Error, last epoch: 0.64% (mean of ten seeds, 95% interval 0.59 to 0.69; paper 0.80); 2,293,000 MACs.

    python scripts/lenet5.py --seed=N                 # N = 0 ... 9; 4 to 7 minutes on one core
    python scripts/lenet5.py --schedule=paper         # the paper's settings, 200 epochs: 0.73%

With random shifts (--shift=2): 0.46%. Trials: docs/trials.md#lenet5
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
