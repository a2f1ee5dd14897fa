"""VGG-like on CIFAR-10, StructuredBP with nothing added: the paper's bound from the first step to the last.

It is StructuredBP's first stage (vgglike-sbp.py) without the KL divergence that starts scaled, and has no second one.
The row shows what these two give.

The short schedule, seed 0: 6.32 % error with 1.33 times fewer multiply-adds, from the Original with 6.44 %; 80 minutes
on two cores in bfloat16, some of them beside other work. No filter of the first seven convolutions is gone. In the last
epoch 2.9 % of the training images were wrong, cropped, flipped and cut. The settings are vgglike-sbp.py's and were not
chosen for it.
"""

import functools

import keras
from absl import flags

from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=1e-4, kl_scale="1")
regularisation.define_flags()
schedule.define_flags()
schedule.define_width()


def main():
    schedule.take("short", epochs=12, **schedule.SHORT)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    name = schedule.network_name("VGG-like")
    run = experiment.Experiment(name, "StructuredBP, plain", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder)
    # Batch normalisation is frozen: part of the pretrained convolutions.
    model = run.build(unit=structured_bp.unit, norm=keras.layers.Identity)
    experiment.set_weights(model, start)
    model = structured_bp.train(run, model, course=schedule.course(), **regularisation.options())
    run.finish(model, half=True)


if __name__ == "__main__":
    command_line.run(main)
