"""ResNet-56 on CIFAR-10, the Original: no pruning. The other ResNet-56 script starts from it.

Error, last epoch: 7.86% (seed 0; He et al., 164 epochs: 6.97).

    python scripts/resnet56.py --precision=bfloat16       # 67 minutes on two cores with nothing else running

Trials: docs/trials.md#resnet56
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import NormalizedOriginal

SHORT = {
    "dataset": "cifar10",
    "epochs": 28,
    "batch_size": 250,
    "optimizer": "muon",
    "learning_rate": 0.125,
    "kernel_learning_rate": 0.07,
    "warmup": 0.2,
    "decay_start": 0.2,
    "weight_decay": 5e-4,
}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-56"], "Original", NormalizedOriginal, CropAndFlip, short=SHORT)
