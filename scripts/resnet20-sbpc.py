"""StructuredBPc for ResNet-20 on CIFAR-10: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error: 11.69% with noise, 10.15% fine-tuned (seed 0) with 3.01x fewer MACs.

    python scripts/resnet20-sbpc.py --precision=bfloat16  # 37 minutes on two cores of a Xeon with AMX

It continues from resnet20-sbp.py's network. Trials: docs/trials.md#resnet20-sbpc
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, StructuredBP

SHORT = {
    "dataset": "cifar10",
    "epochs": 8,
    "batch_size": 125,
    "learning_rate": 1e-3,
    "noise_learning_rate": 5e-2,
    "warmup": 0.1,
    "decay_start": 0.2,
    "price": 140.0,
    "final_price": 70.0,
    "shrink_every": 2,
    "finetune_epochs": 40,
    "finetune_learning_rate": 0.1,
    "finetune_warmup": 0.1,
    "finetune_decay_start": 0.2,
    "finetune_weight_decay": 5e-4,
}


def train(run):
    model = run.train(experiment.build_from(run, "resnet20-sbp"))
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-20"], "StructuredBPc", StructuredBP, CropAndFlip, Retraining, short=SHORT)
