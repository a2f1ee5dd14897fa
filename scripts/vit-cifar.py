"""A small vision transformer on CIFAR-10, the Original. vit-cifar-sbp.py starts from it.

Error, last epoch: 27.90% (seed 0); 12,411,520 MACs.

    python scripts/vit-cifar.py --precision=bfloat16      # 63 minutes on one core, other runs beside it

Trials: docs/trials.md#vit-cifar
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Original

SHORT = {
    "dataset": "cifar10",
    "epochs": 30,
    "batch_size": 125,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "decay_start": 0.1,
}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ViT"], "Original", Original, CropAndFlip, short=SHORT)
