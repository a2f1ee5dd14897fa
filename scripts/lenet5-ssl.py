"""SSL for LeNet5 on MNIST: a group lasso on filters, input channels, rows and columns, from the Original's weights.

Error, last epoch: 0.81% (mean of five seeds, 95% interval 0.72 to 0.90; paper 1.00) with 7.9x fewer MACs (paper 3.90).

    python scripts/lenet5-ssl.py --seed=N             # N = 0 ... 4; 9 to 13 minutes on one core

Trials: docs/trials.md#lenet5-ssl
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import SSL

SHORT = {
    "dataset": "mnist",
    "epochs": 40,
    "batch_size": 128,
    "learning_rate": 0.1,
    "conv_strengths": (5e-4, 1e-4),
    "strength": 5e-6,
}


def train(run):
    start = experiment.find_or_train(run, "lenet5")
    model = run.build()
    experiment.load_weights(run, model, start)
    return run.finish(run.train(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LeNet5"], "SSL", SSL, Shift, short=SHORT)
