"""ResNet-20 on CIFAR-10, the Original: no pruning. The other ResNet-20 scripts start from it.

Error, last epoch: 8.40% (seed 0; He et al.: 8.75).

    python scripts/resnet20.py --precision=bfloat16       # 55 minutes on two cores with nothing else running

Trials: docs/trials.md#resnet20
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import NormalizedOriginal

SHORT = {
    "dataset": "cifar10",
    "epochs": 100,
    "batch_size": 125,
    "optimizer": "nesterov",
    "learning_rate": 0.2,
    "warmup": 0.2,
    "decay_start": 0.2,
    "weight_decay": 5e-4,
}


def train(run):
    return experiment.train_original(run)


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-20"], "Original", NormalizedOriginal, CropAndFlip, short=SHORT)
