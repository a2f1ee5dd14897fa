"""StructuredBPc for ResNet-20 on CIFAR-10: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error: 11.69% with noise, 10.15% fine-tuned (seed 0) with 3.01x fewer MACs.

    python scripts/resnet20-sbpc.py --precision=bfloat16  # 37 minutes on two cores of a Xeon with AMX

It continues from resnet20-sbp.py's network. Trials: docs/trials.md#resnet20-sbpc
"""

import functools

from absl import flags

from keras_sbp.nets import resnet20
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=8, batch_size=125, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="price=70", kl_start="price=140", shrink_every=2)
retraining.define_flags(epochs=40, learning_rate=0.1, weight_decay=5e-4)
schedule.define_width()
# The shares of the training at which learning rates have risen from 0 and begin to fall to 0.
COURSE = (0.1, 0.2)


def main():
    build = functools.partial(resnet20.resnet20, width=FLAGS.width)
    run = experiment.Experiment(
        schedule.network_name("ResNet-20"), "StructuredBPc", build, resnet20.units, data.standardised
    )
    start = FLAGS.checkpoint or experiment.pretrained("resnet20-sbp", run.folder)
    counts = experiment.units_in(start, run)
    structured_bp.in_two_stages(run, start, course=COURSE, counts=counts, prepare=data.augmented)


if __name__ == "__main__":
    command_line.run(main)
