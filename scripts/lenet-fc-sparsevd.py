"""SparseVD for Lenet-fc on MNIST: noise on every weight; a unit without a nonzero weight to or from it is dead.

Error, last epoch: 1.47% (mean of five seeds, 95% interval 1.36 to 1.59; paper 1.57) with 5.6x fewer MACs (paper 3.73).

    python scripts/lenet-fc-sparsevd.py --seed=N      # N = 0 ... 4; 4 minutes on one core

Trials: docs/trials.md#lenet-fc-sparsevd
"""

from absl import flags

from keras_sbp.layers import sparse_vd
from keras_sbp.nets import lenet_fc
from keras_sbp.utils import experiment, training
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sparse_vd as sparse_variational_dropout

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=60, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
sparse_variational_dropout.define_flags(noise_learning_rate=1e-4, warm_up=12)
training.define_shrinking_flag(5)


def main():
    run = experiment.Experiment("Lenet-fc", "SparseVD", lenet_fc.lenet_fc, lenet_fc.units, data.scaled)
    start = FLAGS.checkpoint or experiment.pretrained("lenet-fc", run.folder)
    model = run.build(dense=sparse_vd.Dense)
    experiment.set_weights(model, start)
    model = sparse_variational_dropout.train(run, model, shrink_every=FLAGS.shrink_every)
    run.finish(model, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
