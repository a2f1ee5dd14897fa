"""StructuredBP for ResNet-56 on CIFAR-10: noise on every filter, shared by the filters that a residual stream adds up.

Error: 9.33% with noise, 8.59% fine-tuned (seed 0) with 1.85x fewer MACs.

    python scripts/resnet56-sbp.py --precision=bfloat16   # 34 minutes on two cores, tests beside it

Trials: docs/trials.md#resnet56-sbp
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, StructuredBP

SHORT = {
    "dataset": "cifar10",
    "epochs": 6,
    "batch_size": 125,
    "learning_rate": 1e-3,
    "noise_learning_rate": 5e-2,
    "warmup": 0.1,
    "decay_start": 0.2,
    # 20 sqrt(c / c_min) for a unit that costs c MACs. Of each stage, in the order of the network: stream and nine
    # blocks in the first, a first block before the stream in the others.
    "initial_kl_scale": (
        *(141.4, *[46.19] * 9),
        *(28.28, 96.92, *[32.66] * 8),
        *(20.0, 67.44, *[23.09] * 8),
    ),
    "shrink_every": 2,
    "finetune_epochs": 6,
    "finetune_learning_rate": 0.02,
    "finetune_kernel_learning_rate": 0.01,
    "finetune_warmup": 0.1,
    "finetune_decay_start": 0.2,
    "finetune_weight_decay": 5e-4,
}


def train(run):
    model = run.train(experiment.build_from(run, "resnet56"))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-56"], "StructuredBP", StructuredBP, CropAndFlip, Retraining, short=SHORT)
