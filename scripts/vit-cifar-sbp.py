"""StructuredBP for a small vision transformer on CIFAR-10: noise on stream, heads, their dimensions, and MLPs.

    python scripts/vit-cifar-sbp.py

Trials: docs/trials.md#vit-cifar
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Finetuning, StructuredBP

SHORT = {
    "dataset": "cifar10",
    "epochs": 20,
    "batch_size": 125,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "noise_learning_rate": 2e-2,
    "finetune_epochs": 20,
    "finetune_learning_rate": 1e-3,
}


def train(run):
    start = experiment.find_or_train(run, "vit-cifar")
    model = run.build()
    experiment.load_weights(run, model, start)
    model = run.train(experiment.insert_noise(run, model))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ViT"], "StructuredBP", StructuredBP, CropAndFlip, Finetuning, short=SHORT)
