"""SparseVD for Lenet-fc on MNIST: noise on every weight; a unit without a nonzero weight to or from it is dead.

Error, last epoch: 1.47% (mean of five seeds, 95% interval 1.36 to 1.59; paper 1.57) with 5.6x fewer MACs (paper 3.73).

    python scripts/lenet-fc-sparsevd.py --seed=N      # N = 0 ... 4; 4 minutes on one core

Trials: docs/trials.md#lenet-fc-sparsevd
"""

from keras_sbp import layers
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import SparseVD

SHORT = {
    "dataset": "mnist",
    "epochs": 60,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "noise_learning_rate": 1e-4,
    "kl_warmup": 12.0,
    "shrink_every": 5,
}


def train(run):
    start = experiment.find_or_train(run, "lenet-fc")
    model = run.build(dense=layers.sparse_vd.Dense)
    experiment.load_weights(run, model, start)
    return run.finish(run.train(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["Lenet-fc"], "SparseVD", SparseVD, Shift, short=SHORT)
