"""StructuredBPa for VGG-like on CIFAR-10: the KL divergence of the first block times 10, of the second times 5.

Error: 6.75% with noise, 7.04% fine-tuned (seed 0; paper 9.00) with 3.64x fewer MACs (paper 3.16).

    python scripts/vgglike-sbpa.py --schedule=short --precision=bfloat16   # 27 minutes on two cores of a Xeon with AMX

It continues from vgglike-sbp.py's network. Trials: docs/trials.md#vgglike-sbpa
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
    # A factor for each noise layer: after the 13 convolutions, before both dense layers.
    "kl_scale": (10.0,) * 2 + (5.0,) * 2 + (1.0,) * 11,
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
    "initial_kl_scale": (80.0,) * 2 + (40.0,) * 2 + (8.0,) * 11,
    "shrink_every": 1,
    "finetune_epochs": 20,
    "finetune_learning_rate": 0.05,
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
        "StructuredBPa",
        StructuredBP,
        CropAndFlip,
        Retraining,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
