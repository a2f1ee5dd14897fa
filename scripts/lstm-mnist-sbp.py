"""StructuredBP for an LSTM on MNIST: noise on its units, at each step and in what reads them.

Error, last epoch: 0.79% (mean of three seeds; the Original has 0.75) with 5.5x fewer MACs.

    python scripts/lstm-mnist-sbp.py --seed=N         # N = 0, 1, 2; 25 minutes, other runs on both cores

Trials: docs/trials.md#lstm-mnist
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Finetuning, StructuredBP

SHORT = {
    "dataset": "mnist",
    "shift": 1,
    "epochs": 60,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "noise_learning_rate": 2e-2,
    "initial_kl_scale": (110.0,),
    "shrink_every": 4,
}


def train(run):
    start = experiment.find_or_train(run, "lstm-mnist")
    model = run.build()
    experiment.load_weights(run, model, start)
    model = run.train(experiment.insert_noise(run, model))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LSTM"], "StructuredBP", StructuredBP, Shift, Finetuning, short=SHORT)
