"""StructuredBPc for Lenet-fc on MNIST: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error, last epoch: 1.60% (mean of ten seeds, 95% interval 1.55 to 1.65) with 21.3x fewer MACs (20.7 to 21.9).

    python scripts/lenet-fc-sbpc.py --seed=N          # N = 0 ... 9; a minute and a half on one core
    python scripts/lenet-fc-sbpc.py --seed=N --shift=2 --price=4 --final_price=2    # 0.97%, 16.6x
    python scripts/lenet-fc-sbpc.py --seed=N --shift=1 --price=18 --final_price=9 --epochs=200    # 1.57%, 68.9x

Trials: docs/trials.md#lenet-fc-sbpc
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
    "price": 2.0,
    "final_price": 1.0,
    "shrink_every": 5,
    "finetune_learning_rate": 1e-4,
}


def train(run):
    model = run.build(unit=run.method.unit)
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["Lenet-fc"], "StructuredBPc", StructuredBP, Shift, Finetuning, short=SHORT)
