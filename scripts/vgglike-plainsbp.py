"""VGG-like on CIFAR-10, StructuredBP with nothing added: the paper's bound from the first step to the last.

It is StructuredBP's first stage (vgglike-sbp.py) without the KL divergence that starts scaled, and has no second one.
The row shows what these two give.

The short schedule, seed 0: 6.32 % error with 1.33 times fewer multiply-adds, from the Original with 6.44 %; 80 minutes
on two cores in bfloat16, some of them beside other work. No filter of the first seven convolutions is gone. In the last
epoch 2.9 % of the training images were wrong, cropped, flipped and cut. The settings are vgglike-sbp.py's and were not
chosen for it.
"""

import keras

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
        train, NETWORKS["VGG-like"], "StructuredBP, plain", StructuredBP, CropAndFlip, paper=PAPER, short=SHORT
    )
