"""SparseVD for LeNet5 on MNIST: noise on every weight; a unit without a nonzero weight to or from it is dead.

Error, last epoch: 0.69% (mean of five seeds, 95% interval 0.66 to 0.71; paper 0.75) with 2.4x fewer MACs (paper 2.19).

    python scripts/lenet5-sparsevd.py --seed=N        # N = 0 ... 4; 9 minutes on one core

Trials: docs/trials.md#lenet5-sparsevd
"""

from absl import flags

from keras_sbp.layers import sparse_vd
from keras_sbp.nets import lenet5
from keras_sbp.utils import experiment, training
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sparse_vd as sparse_variational_dropout

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=20, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
sparse_variational_dropout.define_flags(noise_learning_rate=5e-4, warm_up=4)
training.define_shrinking_flag(4)


def main():
    run = experiment.Experiment("LeNet5", "SparseVD", lenet5.lenet5, lenet5.units, data.scaled)
    start = FLAGS.checkpoint or experiment.pretrained("lenet5", run.folder)
    model = run.build(dense=sparse_vd.Dense, conv=sparse_vd.Conv2D)
    experiment.set_weights(model, start)
    model = sparse_variational_dropout.train(run, model, shrink_every=FLAGS.shrink_every)
    run.finish(model, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
