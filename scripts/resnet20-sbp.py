"""StructuredBP for ResNet-20 on CIFAR-10: noise on every filter, shared by the filters that a residual stream adds up.

Error: 10.96% with noise, 9.41% fine-tuned (seed 0) with 2.27x fewer MACs.

    python scripts/resnet20-sbp.py --precision=bfloat16   # 81 minutes on one core, other runs beside it

Trials: docs/trials.md#resnet20-sbp
"""

import functools

from absl import flags

from keras_sbp.nets import resnet20
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=12, batch_size=125, learning_rate=1e-3, weight_decay=0.0)
# 75 times the root of what a unit costs, relative to the cheapest: stage by stage, in the order of the layers.
KL_START = "318.03,173.21,173.21,173.21,106.07,205.14,122.47,122.47,75,137.69,86.6,86.6"
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="1", kl_start=KL_START, shrink_every=2)
retraining.define_flags(epochs=40, learning_rate=0.1, weight_decay=5e-4)
schedule.define_width()
# The shares of the training at which learning rates have risen from 0 and begin to fall to 0.
COURSE = (0.1, 0.2)


def main():
    build = functools.partial(resnet20.resnet20, width=FLAGS.width)
    run = experiment.Experiment(
        schedule.network_name("ResNet-20"), "StructuredBP", build, resnet20.units, data.standardised
    )
    start = FLAGS.checkpoint or experiment.pretrained("resnet20", run.folder)
    structured_bp.in_two_stages(run, start, course=COURSE, prepare=data.augmented)


if __name__ == "__main__":
    command_line.run(main)
