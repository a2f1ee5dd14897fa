"""StructuredBP for LeNet5 on MNIST: noise on every filter and neuron, from the Original's weights.

Error, last epoch: 0.78% (mean of ten seeds, 95% interval 0.72 to 0.83; paper 0.86) with 12.1x fewer MACs (paper 10.49).

    python scripts/lenet5-sbp.py --seed=N             # N = 0 ... 9; 2 to 13 minutes on one core
    python scripts/lenet5-sbp.py --schedule=paper     # the paper's settings, 200 epochs: 0.70%, 5.04x

Trials: docs/trials.md#lenet5-sbp
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Finetuning, StructuredBP

SHORT = {
    "dataset": "mnist",
    "epochs": 40,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "noise_learning_rate": 2e-2,
    # About (c / c_min)^0.95 for a unit that costs c MACs.
    "initial_kl_scale": (145.0, 64.0, 1.0, 1.6),
    "shrink_every": 5,
    "finetune_learning_rate": 1e-4,
}
PAPER = SHORT | {"epochs": 200, "noise_learning_rate": 1e-3, "initial_kl_scale": (), "shrink_every": 0}


def train(run):
    start = experiment.find_or_train(run, "lenet5")
    model = run.build(unit=run.method.unit)
    experiment.load_weights(run, model, start)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(
        train, NETWORKS["LeNet5"], "StructuredBP", StructuredBP, Shift, Finetuning, short=SHORT, paper=PAPER
    )
