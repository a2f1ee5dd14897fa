"""SSL for LeNet5 on MNIST: a group lasso on filters, input channels, rows and columns, from the Original's weights.

Error, last epoch: 0.81% (mean of five seeds, 95% interval 0.72 to 0.90; paper 1.00) with 7.9x fewer MACs (paper 3.90).

    python scripts/lenet5-ssl.py --seed=N             # N = 0 ... 4; 9 to 13 minutes on one core

Trials: docs/trials.md#lenet5-ssl
"""

from absl import flags

from keras_sbp.nets import lenet5
from keras_sbp.utils import experiment, training
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import ssl as structured_sparsity

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=40, batch_size=128, learning_rate=0.1, weight_decay=0.0)
training.define_shrinking_flag(0)
flags.DEFINE_float("conv1_strength", 5e-4, "Strength of the group lasso on the first convolution, for every image.", 0)
flags.DEFINE_float("conv2_strength", 1e-4, "Of that on the second.", 0)
flags.DEFINE_float("dense_strength", 5e-6, "Of that on both dense layers.", 0)


def main():
    run = experiment.Experiment("LeNet5", "SSL", lenet5.lenet5, lenet5.units, data.scaled)
    start = FLAGS.checkpoint or experiment.pretrained("lenet5", run.folder)
    model = run.build()
    experiment.set_weights(model, start)
    strength = {"conv1": FLAGS.conv1_strength, "conv2": FLAGS.conv2_strength}
    model = structured_sparsity.train(run, model, lambda layer: strength.get(layer.name, FLAGS.dense_strength))
    run.finish(model)


if __name__ == "__main__":
    command_line.run(main)
