"""StructuredBPa for VGG-like on CIFAR-10: the KL divergence of the first block times 10, of the second times 5.

Error: 6.75% with noise, 7.04% fine-tuned (seed 0; paper 9.00) with 3.64x fewer MACs (paper 3.16).

    python scripts/vgglike-sbpa.py --schedule=short --precision=bfloat16   # 26 minutes on two cores of a Xeon with AMX

It continues from vgglike-sbp.py's network. Trials: docs/trials.md#vgglike-sbpa
"""

import functools

from absl import flags

from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation, retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
# A factor a layer of noise: those after the convolutions, before both dense layers.
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale=["10"] * 2 + ["5"] * 2 + ["1"] * 11)
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
schedule.define_flags()
schedule.define_width()


def main():
    kl_start = ["80"] * 2 + ["40"] * 2 + ["8"] * 11
    retrain = {"finetune_epochs": 20, "finetune_learning_rate": 0.05}
    schedule.take("short", epochs=8, kl_start=kl_start, **schedule.SHORT, **retrain)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    name = schedule.network_name("VGG-like")
    run = experiment.Experiment(name, "StructuredBPa", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike-sbp", run.folder)
    counts = experiment.units_in(start, run)
    structured_bp.in_two_stages(run, start, course=schedule.course(), counts=counts, **regularisation.options())


if __name__ == "__main__":
    command_line.run(main)
