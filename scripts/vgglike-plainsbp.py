"""StructuredBP for VGG-like on CIFAR-10 with the paper's bound throughout: no annealed KL weight, no fine-tuning.

Error, last epoch: 6.32% (seed 0; paper 7.50) with 1.33x fewer MACs (paper 2.30).

    python scripts/vgglike-plainsbp.py --schedule=short --precision=bfloat16    # 80 minutes on two cores

Trials: docs/trials.md#vgglike-plainsbp
"""

from keras_sbp.lazy import keras
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import StructuredBP

PAPER = {
    "dataset": "cifar10",
    "epochs": 300,
    "batch_size": 100,
    "learning_rate": 1e-5,
    "noise_learning_rate": 1e-4,
    "decay_start": 250 / 300,
    "shrink_every": 5,
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
    "shrink_every": 1,
}


def train(run):
    start = experiment.find_or_train(run, "vgglike")
    # Batch normalization is frozen: it is part of the pretrained convolutions.
    model = run.build(unit=run.method.unit, norm=keras.layers.Identity)
    experiment.load_weights(run, model, start)
    return run.finish(run.train(model), half=True)


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "StructuredBP, plain",
        StructuredBP,
        CropAndFlip,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
