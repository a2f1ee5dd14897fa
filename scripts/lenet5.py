"""LeNet5 on MNIST, the Original: the network that the others are measured against and start from.

Ten seeds, last epoch: 0.64 % error, 95 % interval 0.59 to 0.69 (the paper 0.80), 2,293,000 multiply-adds; 4 to 7
minutes on one core, on another machine and with other work beside it up to 17.

On images moved by up to 2 pixels (--shift=2), ten seeds: 0.46 %, 95 % interval 0.44 to 0.49.

The paper's settings (--schedule=paper, 200 epochs; seed 0): 0.73 %, 33 minutes. The weight decay has emptied units: the
weights of 10 first filters, 31 second ones and 464 neurons have a norm under a thousandth of their layer's largest.
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Original

SHORT = {"dataset": "mnist", "epochs": 30, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 5e-4}
PAPER = SHORT | {"epochs": 200}


def train(run):
    model = run.build()
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    return run.finish(run.train(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LeNet5"], "Original", Original, Shift, short=SHORT, paper=PAPER)
