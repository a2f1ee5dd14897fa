"""StructuredBPc for VGG-like on CIFAR-10: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error: 8.36% with noise, 7.49% fine-tuned (seed 0) with 5.19x fewer MACs.

    python scripts/vgglike-sbpc.py --schedule=short --precision=bfloat16   # 24 minutes on two cores of a Xeon with AMX

It continues from vgglike-sbp.py's network. Trials: docs/trials.md#vgglike-sbpc
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
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale="price=9")
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
schedule.define_flags()
schedule.define_width()


def main():
    schedule.take("short", epochs=8, kl_start=["price=18"], finetune_epochs=30, **schedule.SHORT)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    name = schedule.network_name("VGG-like")
    run = experiment.Experiment(name, "StructuredBPc", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike-sbp", run.folder)
    counts = experiment.units_in(start, run)
    structured_bp.in_two_stages(run, start, course=schedule.course(), counts=counts, **regularisation.options())


if __name__ == "__main__":
    command_line.run(main)
