"""StructuredBP for Lenet-fc on MNIST: noise on every pixel and neuron, from random weights.

Error, last epoch: 1.53% (mean of ten seeds, 95% interval 1.46 to 1.60; paper 1.55) with 12.7x fewer MACs (paper 11.23).

    python scripts/lenet-fc-sbp.py --seed=N           # N = 0 ... 9; 1 to 3 minutes on one core
    python scripts/lenet-fc-sbp.py --schedule=paper   # the paper's settings, 200 epochs: 1.30%, 5.29x

Trials: docs/trials.md#lenet-fc-sbp
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Finetuning, StructuredBP

SHORT = {
    "dataset": "mnist",
    "epochs": 100,
    "batch_size": 128,
    "learning_rate": 3e-3,
    "noise_learning_rate": 2e-2,
    "shrink_every": 5,
    "finetune_learning_rate": 1e-4,
}
PAPER = SHORT | {"epochs": 200, "learning_rate": 1e-3, "noise_learning_rate": 1e-3, "shrink_every": 0}


def train(run):
    model = run.build(unit=run.method.unit)
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(
        train, NETWORKS["Lenet-fc"], "StructuredBP", StructuredBP, Shift, Finetuning, short=SHORT, paper=PAPER
    )
