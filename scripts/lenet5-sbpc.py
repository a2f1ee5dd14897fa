"""StructuredBPc for LeNet5 on MNIST: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error, last epoch: 0.84% (mean of ten seeds, 95% interval 0.78 to 0.91) with 20.9x fewer MACs (18.1 to 23.6).

    python scripts/lenet5-sbpc.py --seed=N            # N = 0 ... 9; 2 to 3 minutes on one core

With random shifts and fine-tuning: 0.78%, 18.6x (ten seeds); at a higher price 1.08%, 41.9x (five seeds). Their flags
and the trials: docs/trials.md#lenet5-sbpc
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
    "price": 10.0,
    "final_price": 5.0,
    "shrink_every": 5,
    "finetune_learning_rate": 1e-4,
}


def train(run):
    start = experiment.find_or_train(run, "lenet5")
    if run.settings.epochs:
        model = run.build(unit=run.method.unit)
        experiment.load_weights(run, model, start)
    else:
        model = experiment.load_smaller(run, start)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["LeNet5"], "StructuredBPc", StructuredBP, Shift, Finetuning, short=SHORT)
