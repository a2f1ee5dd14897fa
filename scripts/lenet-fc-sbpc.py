"""Lenet-fc on MNIST, StructuredBPc: the KL divergence of a unit scaled by what the unit costs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags

from nets import lenet_fc
from utils import command_line, data, experiment, structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=100, batch_size=128, learning_rate=3e-3)
structured_bp.define_flags(noise_learning_rate=2e-2, kl_scale="cost", weight_decay=0.0, log_sigma=-5.0, shrink_every=5)


def main():
    run = experiment.Experiment("Lenet-fc", "StructuredBPc", lenet_fc.lenet_fc, lenet_fc.units)
    with run.strategy.scope():
        model = lenet_fc.lenet_fc(unit=structured_bp.unit)
    if FLAGS.checkpoint:
        run.start_from(FLAGS.checkpoint, model)
    model = run.train(
        model,
        prepare=lambda images, seed: data.scaled(images),
        shrink_every=FLAGS.shrink_every,
        rate=structured_bp.rate,
        penalty=structured_bp.negative_bound(model, images=len(run.train_set.labels)),
    )
    run.finish(model, data.scaled)


if __name__ == "__main__":
    command_line.run(main)
