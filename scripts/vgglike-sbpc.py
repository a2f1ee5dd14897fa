"""StructuredBPc for VGG-like on CIFAR-10: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error: 8.36% with noise, 7.49% fine-tuned (seed 0) with 5.19x fewer MACs.

    python scripts/vgglike-sbpc.py --schedule=short --precision=bfloat16   # 24 minutes on two cores of a Xeon with AMX

It continues from vgglike-sbp.py's network. Trials: docs/trials.md#vgglike-sbpc
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, StructuredBP

PAPER = {
    "dataset": "cifar10",
    "epochs": 300,
    "batch_size": 100,
    "learning_rate": 1e-5,
    "noise_learning_rate": 1e-4,
    "decay_start": 250 / 300,
    "price": 9.0,
    "final_price": 9.0,
    "shrink_every": 5,
    "finetune_learning_rate": 0.1,
    "finetune_weight_decay": 5e-4,
    "finetune_decay_start": 250 / 300,
}
SHORT = PAPER | {
    "epochs": 8,
    "batch_size": 125,
    "learning_rate": 3e-4,
    "noise_learning_rate": 5e-2,
    "warmup": 0.2,
    "decay_start": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "price": 18.0,
    "shrink_every": 1,
    "finetune_epochs": 30,
    "finetune_warmup": 0.2,
    "finetune_decay_start": 0.2,
    "finetune_label_smoothing": 0.1,
}


def train(run):
    model = run.train(experiment.build_from(run, "vgglike-sbp"))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "StructuredBPc",
        StructuredBP,
        CropAndFlip,
        Retraining,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
