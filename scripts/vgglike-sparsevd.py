"""VGG-like on CIFAR-10, SparseVD: noise on every weight, from pretrained weights.

Not run to its end yet. The settings were not chosen by trials. The trials below had other rates, and label smoothing
and cutout, which this script does not have. Here the KL divergence reaches its full weight (--warm_up).

Trials of 8 epochs on held-out images, where the Original has 7.73 %, at k = 1 on a GPU in PyTorch. Label smoothing and
cutout were the Original's; the rates were 2e-4, and 5e-3 for the noise. log sigma^2 started 4 below the log of a
layer's mean square weight. The weight of the KL divergence grew linearly from 0 over the first 0.4 of the epochs. To
its full value: 43.6 % error, 1.49 times fewer multiply-adds, 98.6 % of the weights 0. To a quarter: 18.6 %, 1.26 times,
96.2 %. To a twelfth: 11.3 %, 1.13 times, 93.4 %. Weights go long before filters do. On two cores, 8 epochs are what
fits into 90 minutes.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from layers import sparse_vd
from nets import vgglike
from utils import experiment, sparse_variational_dropout
from utils.experiment import schedule
from utils.plumbing import command_line, data

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
schedule.define_flags()
schedule.define_width()
sparse_variational_dropout.define_flags(noise_learning_rate=1e-4)


def main():
    schedule.take("short", epochs=20, learning_rate=3e-4, noise_learning_rate=1e-3)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "SparseVD", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder)
    # Batch normalisation is frozen: part of the pretrained convolutions.
    model = run.build(dense=sparse_vd.Dense, conv=sparse_vd.Conv2D, norm=keras.layers.Identity)
    experiment.set_weights(model, start)
    model = sparse_variational_dropout.train(run, model, course=schedule.course(), prepare=data.augmented)
    run.finish(model, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
