"""LeNet5 on MNIST, the Original: no pruning. The other LeNet5 scripts start from it.

Error, last epoch: 0.64% (mean of ten seeds, 95% interval 0.59 to 0.69; paper 0.80); 2,293,000 MACs.

    python scripts/lenet5.py --seed=N                 # N = 0 ... 9; 4 to 7 minutes on one core
    python scripts/lenet5.py --schedule=paper         # the paper's settings, 200 epochs: 0.73%

With random shifts (--shift=2): 0.46%. Trials: docs/trials.md#lenet5
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Original

SHORT = {"dataset": "mnist", "epochs": 30, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 5e-4}
PAPER = SHORT | {"epochs": 200}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LeNet5"], "Original", Original, Shift, short=SHORT, paper=PAPER)
