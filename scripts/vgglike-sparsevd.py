"""VGG-like on CIFAR-10, SparseVD: noise on every weight, from pretrained weights.

Not run to its end yet: the rates are those of the LeNets, not the outcome of trials.
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
    # Batch normalisation is frozen: part of the pretrained convolutions.
    model = run.build(dense=sparse_vd.Dense, conv=sparse_vd.Conv2D, norm=keras.layers.Identity)
    experiment.set_weights(model, FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder))
    model = sparse_variational_dropout.train(run, model, course=schedule.course(), prepare=data.augmented)
    run.finish(model, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
