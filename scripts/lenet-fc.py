"""Lenet-fc on MNIST, the Original: no pruning.

Error, last epoch: 1.49% (mean of ten seeds, 95% interval 1.45 to 1.53; paper 1.54); 545,000 MACs.

    python scripts/lenet-fc.py --seed=N               # N = 0 ... 9; half a minute to 2 minutes on one core
    python scripts/lenet-fc.py --schedule=paper       # the paper's settings, 200 epochs: 1.39%

With random shifts (--shift=2): 0.84%. Trials: docs/trials.md#lenet-fc
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Original

SHORT = {"dataset": "mnist", "epochs": 30, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 2e-4}
PAPER = SHORT | {"epochs": 200}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["Lenet-fc"], "Original", Original, Shift, short=SHORT, paper=PAPER)
