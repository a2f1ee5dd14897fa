"""SSL for VGG-like on CIFAR-10: a group lasso on input channels, from the Original's weights, then fine-tuning.

Error: 89.95% after the lasso, 6.62% fine-tuned (seed 0) with 2.52x fewer MACs. The paper has no such row.

    python scripts/vgglike-ssl.py --schedule=short --precision=bfloat16    # 50 minutes on two cores of a Xeon with AMX

Trials: docs/trials.md#vgglike-ssl
"""

import functools

import keras
from absl import flags

from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import regularisation, retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import ssl as structured_sparsity

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=0.05, weight_decay=5e-4)
schedule.define_flags()
schedule.define_width()
training.define_shrinking_flag(1)
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
flags.DEFINE_float("lasso", 0.012, "What a row loses every epoch: a share of the mean length of a layer's.", 0, 0.99)


def main():
    schedule.take("short", epochs=6, batch_size=125, lasso=0.45, label_smoothing=0.1, cutout=8, finetune_epochs=30)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "SSL", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder)
    model = run.build(norm=keras.layers.Identity)
    experiment.set_weights(model, start)
    how = {"course": schedule.course(), **regularisation.options()}
    model = structured_sparsity.train_normalised(run, model, FLAGS.lasso, **how)
    run.finish(model, retraining.retrain(run, model, **how), half=True)


if __name__ == "__main__":
    command_line.run(main)
