"""Lenet-fc on MNIST, SparseVD: noise on every weight; a unit lives while a weight that is left leads to it and from it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags

from layers import sparse_vd
from nets import lenet_fc
from utils import command_line, data, experiment

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=60, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
flags.DEFINE_float("noise_learning_rate", 1e-4, "Adam's rate for log sigma^2, with the schedule of the weights'.", 0)
flags.DEFINE_float(
    "warm_up", 1.0, "The share of the training in which the KL divergence grows from 0 to its full.", 0, 1
)


def main():
    run = experiment.Experiment("Lenet-fc", "SparseVD", lenet_fc.lenet_fc, lenet_fc.units)
    with run.strategy.scope():
        model = lenet_fc.lenet_fc(dense=sparse_vd.Dense)
    run.start_from(FLAGS.checkpoint or run.pretrained("lenet-fc"), model)
    model = run.train(
        model,
        prepare=lambda images, seed: data.scaled(images),
        rate=lambda variable: FLAGS.noise_learning_rate if variable.name == "log_sigma2" else FLAGS.learning_rate,
        kl=sparse_vd.kl(FLAGS.warm_up),
        alive=sparse_vd.alive,
    )
    run.finish(model, data.scaled, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
