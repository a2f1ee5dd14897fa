"""VGG-like on CIFAR-10, the Original: no pruning. The other VGG-like scripts start from it.

Error, last epoch: 6.44% (seed 0; seed 1: 6.78%; paper 7.20) in 28 epochs.

    python scripts/vgglike.py --schedule=short --precision=bfloat16    # 68 minutes (seed 1), two cores, Xeon with AMX

Without --schedule=short: the authors' 200 epochs, which were not run. Trials: docs/trials.md#vgglike
"""

import functools

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import VGGOriginal

PAPER = {
    "dataset": "cifar10",
    "epochs": 200,
    "batch_size": 100,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    # The authors' rates of the Original fall from half of the training on, unlike those of their StructuredBP.
    "decay_start": 0.5,
    "weight_decay": 2e-5,
    "growing_decay": True,
    "dropout": 1.0,
}
SHORT = PAPER | {
    "epochs": 28,
    "batch_size": 500,
    "optimizer": "muon",
    "learning_rate": 0.125,
    "kernel_learning_rate": 0.1,
    "warmup": 0.2,
    "decay_start": 0.2,
    "weight_decay": 5e-4,
    "growing_decay": False,
    "dropout": 0.0,
    "label_smoothing": 0.1,
    "cutout": 8,
    "identity_initialization": True,
}


def train(run):
    from keras_sbp.nets import vgglike  # imports Keras

    model = run.build(unit=functools.partial(run.method.dropout_layer, rates=vgglike.DROPOUT))
    if run.method.identity_initialization:
        vgglike.start_as_identity(model)
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    return run.finish(run.train(model), half=True)


if __name__ == "__main__":
    experiment.main(
        train,
        NETWORKS["VGG-like"],
        "Original",
        VGGOriginal,
        CropAndFlip,
        default_schedule="paper",
        paper=PAPER,
        short=SHORT,
    )
