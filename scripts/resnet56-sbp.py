"""StructuredBP for ResNet-56 on CIFAR-10: noise on every filter, shared by the filters that a residual stream adds up.

    python scripts/resnet56-sbp.py --precision=bfloat16

Trials: docs/trials.md#resnet56-sbp
"""

from keras_sbp.lazy import keras
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
    # 45 sqrt(c / c_min) for a unit that costs c MACs. Of each stage: the stream and nine blocks, in the order in which
    # the network has their noise, a first block before the stream of its stage.
    "initial_kl_scale": (
        *(318.14, *[103.92] * 9),
        *(63.64, 218.06, *[73.48] * 8),
        *(45.0, 151.74, *[51.96] * 8),
    ),
    "shrink_every": 2,
    "finetune_epochs": 18,
    "finetune_learning_rate": 0.1,
    "finetune_warmup": 0.1,
    "finetune_decay_start": 0.2,
    "finetune_weight_decay": 5e-4,
}


def train(run):
    start = experiment.find_or_train(run, "resnet56")
    # Batch normalization is frozen while there is noise: it is part of the pretrained convolutions.
    unit = run.method.unit if run.settings.epochs else keras.layers.Identity
    model = run.build(unit=unit, norm=keras.layers.Identity, counts=experiment.live_units(run, start))
    experiment.load_weights(run, model, start)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-56"], "StructuredBP", StructuredBP, CropAndFlip, Retraining, short=SHORT)
