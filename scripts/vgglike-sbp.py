"""StructuredBP for VGG-like on CIFAR-10: noise on every filter and neuron, then fine-tuning without noise.

Error: 8.61% with noise, 6.80% fine-tuned (seed 0; paper 7.50, not fine-tuned) with 3.26x fewer MACs (paper 2.30).

    python scripts/vgglike-sbp.py --schedule=short --precision=bfloat16    # 39 minutes on two cores of a Xeon with AMX

Distilled from SparseVD's network: 6.32% with as many MACs, in two hours on a Zen 4; the command and the trials:
docs/trials.md#vgglike-sbp
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
    "shrink_every": 5,
    "finetune_learning_rate": 0.1,
    "finetune_weight_decay": 5e-4,
    "finetune_decay_start": 250 / 300,
}
SHORT = PAPER | {
    "epochs": 12,
    "batch_size": 125,
    "learning_rate": 3e-4,
    "noise_learning_rate": 5e-2,
    "warmup": 0.2,
    "decay_start": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "price": 13.0,
    "shrink_every": 1,
    "finetune_epochs": 30,
    "finetune_warmup": 0.2,
    "finetune_decay_start": 0.2,
    "finetune_label_smoothing": 0.1,
}


def train(run):
    model = run.train(experiment.build_from(run, "vgglike"))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "StructuredBP",
        StructuredBP,
        CropAndFlip,
        Retraining,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
