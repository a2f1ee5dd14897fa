"""Lenet-fc on MNIST, StructuredBPc: the KL divergence of a unit scaled by what the unit costs.

Ten seeds, last epoch: 1.60 % error, 95 % interval 1.55 to 1.65, with 21.3 times fewer multiply-adds (20.7 to 21.9), 188
- 107 - 46 units; a minute and a half on one core.

On images moved by up to 2 pixels (--shift=2 --kl_start=price=4 --kl_scale=price=2), ten seeds: 0.97 %, 95 % interval
0.92 to 1.01, with 16.6 times fewer multiply-adds (16.1 to 17.1), 200 - 121 - 65 units; 2 to 4 minutes on half a core.

The scale is 1 + price * cost, the cost relative to the mean of all units; the price falls from 2 to 1 by half of the
training. Tried on held-out images, where the Original has 1.64 %:

    price at the start  at the end  error %, seeds 0 and 1  times fewer multiply-adds
    1.2                 0.6         1.58, 1.62              19.6
    2                   1           1.49, 1.52              23.1
    4                   2           1.73, 1.83              33.3
    2.4                 0.2         1.87, 1.68              21.7
    5                   0.5         1.94, 1.95              32.8

With 200 epochs, from 1.2 to 0.6: 1.55 % at 24.0x (seed 0); from 2 to 1, with a rate of the noise of 5e-3: 1.71 and 1.52
% at 17.1x and 18.1x (seeds 0 and 1). From 2 to 1, started from the Original of the paper's settings in place of random
weights: 1.53 and 1.65 % at 26.5x and 26.4x, from 0.6 to 0.3 1.48 and 1.68 % at 21.9x and 22.8x. Before, the scale was a
power of the cost relative to the cheapest unit:

    scale at the start  at the end  error %, seeds 0 and 1  times fewer multiply-adds
    cost^0.9            cost^0.9    1.84, 1.65              16.7
    2*cost^0.9          cost^0.9    1.55, 1.65              20.1
    3*cost^0.8          cost^0.8    1.65, 1.79              23.6
    4*cost^0.7          cost^0.7    1.73, 1.81              27.2
    6*cost^0.6          cost^0.6    1.76                    34.1

The rates come from earlier trials there, one seed each, 75 epochs, with the cost itself as the scale:

    rate of the weights  of the noise  error %  times fewer multiply-adds
    1e-3                 5e-2          1.51     15.8
    4e-4                 5e-2          1.71     10.6
    3e-3                 5e-2          1.78     21.1
    3e-3                 2e-2          1.35     14.9

The epochs were not chosen on held-out images. Further training of what 2*cost^0.9 leaves, without noise, gains nothing
there (seeds 0 and 1, from 1.55 and 1.65 %): 20 epochs at 1e-3 1.50 and 1.70 %, at 2e-3 1.63 % (seed 0), 50 at 1e-3 1.53
% (seed 0); nor does label smoothing of 0.1: 2.18 and 2.10 %.

With images moved (--shift; held out, where the Original of --shift=2 has 0.98 %):

    shift  price at the start  at the end  error %, seeds 0 and 1  times fewer multiply-adds
    1      2                   1           1.12                    15.9
    2      2                   1           0.95                    11.6
    2      4                   2           1.08, 1.04              18.0
    2      8                   4           1.32                    26.4

Test errors of other settings were known: 2*cost^0.9: 1.59 % at 18.4x (ten seeds), the row before this one; the cost
itself: 1.57 % at 15.1x (three seeds); the power 0.9: 1.51 % at 15.5x (three seeds); with the cost, 120 epochs: 1.60 %
at 16.1x; 80 epochs from 1.5 times the cost: 1.62 % at 14.8x, from twice: 1.65 % at 17.2x and 1.68 % at 16.3x.
"""

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.io.preprocessing import Shift
from keras_sbp.utils.methods import Finetuning, StructuredBP

SHORT = {
    "dataset": "mnist",
    "epochs": 100,
    "batch_size": 128,
    "learning_rate": 3e-3,
    "noise_learning_rate": 2e-2,
    "price": 2.0,
    "final_price": 1.0,
    "shrink_every": 5,
    "finetune_learning_rate": 1e-4,
}


def train(run):
    model = run.build(unit=run.method.unit)
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    model = run.train(model)
    return run.finish(model, run.finetune(model))


if __name__ == "__main__":
    experiment.main(train, NETWORKS["Lenet-fc"], "StructuredBPc", StructuredBP, Shift, Finetuning, short=SHORT)
