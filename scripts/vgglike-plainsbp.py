"""StructuredBP for VGG-like on CIFAR-10 with the paper's bound throughout: no annealed KL weight, no fine-tuning.

Error, last epoch: 6.32% (seed 0; paper 7.50) with 1.33x fewer MACs (paper 2.30).

    python scripts/vgglike-plainsbp.py --schedule=short --precision=bfloat16    # 80 minutes on two cores

Trials: docs/trials.md#vgglike-plainsbp
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
