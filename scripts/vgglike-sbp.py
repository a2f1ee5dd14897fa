"""StructuredBP for VGG-like on CIFAR-10: noise on every filter and neuron, then fine-tuning without noise.

Error: 8.61% with noise, 6.80% fine-tuned (seed 0; paper 7.50, not fine-tuned) with 3.26x fewer MACs (paper 2.30).

    python scripts/vgglike-sbp.py --schedule=short --precision=bfloat16    # 39 minutes on two cores of a Xeon with AMX

Trials: docs/trials.md#vgglike-sbp
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
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale="1")
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
schedule.define_flags()
schedule.define_width()


def main():
    schedule.take("short", epochs=12, kl_start=["price=13"], finetune_epochs=30, **schedule.SHORT)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    name = schedule.network_name("VGG-like")
    run = experiment.Experiment(name, "StructuredBP", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder)
    structured_bp.in_two_stages(run, start, course=schedule.course(), **regularisation.options())


if __name__ == "__main__":
    command_line.run(main)
