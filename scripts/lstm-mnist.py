"""An LSTM on MNIST, the Original: images as sequences of their rows. lstm-mnist-sbp.py starts from it.

Error, last epoch: 0.75% (mean of three seeds), with random shifts of the images by up to a pixel; 2,237,696 MACs.

    python scripts/lstm-mnist.py --seed=N             # N = 0, 1, 2; 11 to 25 minutes, other runs on both cores

Trials: docs/trials.md#lstm-mnist
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Original

SHORT = {"dataset": "mnist", "epochs": 30, "batch_size": 128, "learning_rate": 2e-3, "shift": 1}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LSTM"], "Original", Original, Shift, short=SHORT)
