"""SparseVD for LeNet5 on MNIST: noise on every weight; a unit without a nonzero weight to or from it is dead.

Error, last epoch: 0.69% (mean of five seeds, 95% interval 0.66 to 0.71; paper 0.75) with 2.4x fewer MACs (paper 2.19).

    python scripts/lenet5-sparsevd.py --seed=N        # N = 0 ... 4; 9 minutes on one core

Trials: docs/trials.md#lenet5-sparsevd
"""

from keras_sbp import layers
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import SparseVD

SHORT = {
    "dataset": "mnist",
    "epochs": 20,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "noise_learning_rate": 5e-4,
    "kl_warmup": 4.0,
    "shrink_every": 4,
}


def train(run):
    start = experiment.find_or_train(run, "lenet5")
    model = run.build(dense=layers.sparse_vd.Dense, conv=layers.sparse_vd.Conv2D)
    experiment.load_weights(run, model, start)
    return run.finish(run.train(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LeNet5"], "SparseVD", SparseVD, Shift, short=SHORT)
