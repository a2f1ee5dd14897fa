"""Lenet-fc on MNIST, StructuredBP: every pixel and neuron with its own noise, from scratch.

Seeds 0, 1, 2, last epoch: 1.50 % error (1.62, 1.47, 1.41; the paper 1.55) with 12.6 times fewer multiply-adds (12.8,
12.5, 12.4; the paper 11.23), 221 - 152 - 55 units; 2 to 3 minutes on one core. Other noise, another spread: of earlier
commits, whose noise was drawn in another order, seeds 0 to 3 gave 1.42, 1.43, 1.34, 1.48 and seeds 0 to 4 gave 1.61,
1.47, 1.34, 1.56, 1.50.

On held-out images, rates 1e-3 for the weights and 5e-2 for the noise: 1.40 % at 10.7x in 60 epochs, 1.62 % at 18.2x
in 150. The rates here come from trials of StructuredBPc (lenet-fc-sbpc.py) and were not tried on held-out images for
this row; the test error of 60 epochs with the rates above (seed 0: 1.45 % at 10.7x) was known by then.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import flags

from nets import lenet_fc
from utils import experiment, structured_bp
from utils.experiment import schedule
from utils.plumbing import command_line, data

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=100, batch_size=128, learning_rate=3e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=2e-2, kl_scale="1")
experiment.define_finetune_flags()
schedule.define_flags(default="short")
flags.DEFINE_bool("fixed_mu", False, "Keep mu at 0 and learn log sigma alone; scripts/bound.py compares the bounds.")


def rate(variable):
    return 0.0 if FLAGS.fixed_mu and variable.name == "mu" else structured_bp.rate(variable)


def main():
    schedule.take("paper", epochs=200, learning_rate=1e-3, noise_learning_rate=1e-3, shrink_every=0)
    run = experiment.Experiment("Lenet-fc", "StructuredBP", lenet_fc.lenet_fc, lenet_fc.units, data.scaled)
    model = run.build(unit=structured_bp.unit)
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    model = structured_bp.train(run, model, rate=rate)
    run.finish(model, run.finetune(model))


if __name__ == "__main__":
    command_line.run(main)
