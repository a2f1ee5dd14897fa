"""ResNet-20 on CIFAR-10, the Original: the network that the others are measured against and start from.

Seed 0, last epoch: 8.40 % error (He et al., with shortcuts without weights and 164 epochs: 8.75). In bfloat16 it takes
12 to 13 steps a second on two cores, which is 55 minutes; the published run had another beside it and took 97.

Tried on held-out images, 24 epochs (rate; weight decay): 0.2; 5e-4: 9.94 %. 0.1; 2e-4: 10.54 %. The 100 epochs were
chosen for the time that they take.
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
    model = run.build()
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    return run.finish(run.train(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["ResNet-20"], "Original", NormalizedOriginal, CropAndFlip, short=SHORT)
