"""VGG-like on CIFAR-10, StructuredBPc: the KL divergence of a unit stays scaled by what the unit costs.

It goes on pruning StructuredBP's network, in which an epoch takes a third of the time and what a unit costs has
changed. In the short schedule what is left is trained on; see vgglike-sbp.py. Seed 0: 7.49 % error (8.36 before the
second stage) with 5.19 times fewer multiply-adds; 5 and 19 minutes on two cores of an Intel Xeon with AMX in
bfloat16. Seed 1: 7.28 % (8.54) with 5.35 times fewer.

The price was chosen by the units that are left of the first stage on all training images, for 5 times fewer
multiply-adds, with no look at the test set. How many times fewer there were, and the training images that were wrong in
the last epoch: price=8, from twice that at the start, 4.80 times, 10.0 %; price=9 5.19 times, 11.2 %; price=10 5.72
times, 12.0 %. The test error of an earlier rule was known: 0.4 times the root of the cost relative to the cheapest
unit, from twice that, with 40 epochs of the second stage and from an earlier StructuredBP (6.54 %, 3.31 times fewer):
7.06 % (8.22) with 5.32 times fewer.
"""

import keras

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import CropAndFlip
from keras_sbp.utils.methods import Retraining, StructuredBP

PAPER = {
    "dataset": "cifar10",
    "epochs": 300,
    "batch_size": 100,
    "learning_rate": 1e-5,
    "noise_learning_rate": 1e-4,
    "decay_start": 250 / 300,
    "price": 9.0,
    "final_price": 9.0,
    "shrink_every": 5,
    "finetune_learning_rate": 0.1,
    "finetune_weight_decay": 5e-4,
    "finetune_decay_start": 250 / 300,
}
SHORT = PAPER | {
    "epochs": 8,
    "batch_size": 125,
    "learning_rate": 3e-4,
    "noise_learning_rate": 5e-2,
    "warmup": 0.2,
    "decay_start": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "price": 18.0,
    "shrink_every": 1,
    "finetune_epochs": 30,
    "finetune_warmup": 0.2,
    "finetune_decay_start": 0.2,
    "finetune_label_smoothing": 0.1,
}


def train(run):
    start = experiment.find_or_train(run, "vgglike-sbp")
    # Batch normalization is frozen while there is noise: it is part of the pretrained convolutions.
    model = run.build(unit=run.method.unit, norm=keras.layers.Identity, counts=experiment.live_units(run, start))
    experiment.load_weights(run, model, start)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(
        train, NETWORKS["VGG-like"], "StructuredBPc", StructuredBP, CropAndFlip, Retraining, paper=PAPER, short=SHORT
    )
