"""ResNet-20 on CIFAR-10, StructuredBPc: the KL divergence of a unit stays scaled by what the unit costs.

It goes on pruning StructuredBP's network, as VGG-like's does. Seed 0, last epoch: 10.15 % error with 3.01 times fewer
multiply-adds; 11.69 % before what is left is trained further. 14 - 8 - 2 - 2, 30 - 20 - 3 - 5, 58 - 52 - 24 - 37 units;
7 and 30 minutes on two cores of an Intel Xeon with AMX in bfloat16, part of them beside other runs.

The scale is 1 + 140 * cost at the start and 1 + 70 * cost from half of the training on, where the cost is relative to
the mean of all units: every StructuredBPc's rule. The price was chosen by the units that are left of the first stage on
all training images, with no look at the test set. Three trials were stopped in the fifth of 8 epochs: a price of 15 had
removed no unit, 50 had left 2.5 times fewer multiply-adds, and 100 3.9 times, with a fourth of the training images
wrong. 70 ended at 3.01 times. From the Original's network, with 12 epochs, a price of 30 had left 1.7 times in the
ninth.

The row before this one started from the Original, with 90 times the root of the cost relative to the cheapest unit,
which fell to 10 times: 10.63 % at 3.54x, 14.66 % before the second stage.
"""

import keras

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
    start = experiment.find_or_train(run, "resnet20-sbp")
    # Batch normalization is frozen while there is noise: it is part of the pretrained convolutions.
    model = run.build(unit=run.method.unit, norm=keras.layers.Identity, counts=experiment.live_units(run, start))
    experiment.load_weights(run, model, start)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-20"], "StructuredBPc", StructuredBP, CropAndFlip, Retraining, short=SHORT)
