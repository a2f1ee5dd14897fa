"""StructuredBP for ResNet-20 on CIFAR-10: noise on every filter, shared by the filters that a residual stream adds up.

Error: 10.96% with noise, 9.41% fine-tuned (seed 0) with 2.27x fewer MACs; with a smaller initial KL scale, 8.11% with
1.64x fewer.

    python scripts/resnet20-sbp.py --precision=bfloat16   # 81 minutes on one core, other runs beside it

Trials: docs/trials.md#resnet20-sbp
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, StructuredBP

SHORT = {
    "dataset": "cifar10",
    "epochs": 12,
    "batch_size": 125,
    "learning_rate": 1e-3,
    "noise_learning_rate": 5e-2,
    "warmup": 0.1,
    "decay_start": 0.2,
    # 75 sqrt(c / c_min) for a unit that costs c MACs. Of each stage, in the order of the network: stream and three
    # blocks in the first, a first block before the stream in the others.
    "initial_kl_scale": (
        *(318.03, 173.21, 173.21, 173.21),
        *(106.07, 205.14, 122.47, 122.47),
        *(75.0, 137.69, 86.6, 86.6),
    ),
    "shrink_every": 2,
    "finetune_epochs": 40,
    "finetune_learning_rate": 0.1,
    "finetune_warmup": 0.1,
    "finetune_decay_start": 0.2,
    "finetune_weight_decay": 5e-4,
}


def train(run):
    model = run.train(experiment.build_from(run, "resnet20"))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-20"], "StructuredBP", StructuredBP, CropAndFlip, Retraining, short=SHORT)
