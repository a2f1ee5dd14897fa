"""SparseVD for VGG-like on CIFAR-10: noise on every weight, then fine-tuning, live units starting from the Original.

Error: 21.40% with noise, 6.25% fine-tuned (seed 0; paper 7.20, not fine-tuned) with 2.30x fewer MACs (paper 2.27).

    python scripts/vgglike-sparsevd.py --schedule=short --precision=bfloat16    # 87 minutes on two cores

Trials: docs/trials.md#vgglike-sparsevd
"""

import functools

import keras
from absl import flags

from keras_sbp.layers import sparse_vd
from keras_sbp.nets import vgglike
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation, retraining, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sparse_vd as sparse_variational_dropout

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=1e-5, weight_decay=0.0)
schedule.define_flags()
schedule.define_width()
sparse_variational_dropout.define_flags(noise_learning_rate=1e-4)
retraining.define_flags(epochs=0, learning_rate=0.05, weight_decay=5e-4)
regularisation.define_flags()

# Of the short schedule.
SHORT = {
    "epochs": 3,
    "batch_size": 125,
    "learning_rate": 2e-2,
    "noise_learning_rate": 3e-3,
    "warm_up": 0.2,
    "label_smoothing": 0.1,
    "cutout": 8,
    "finetune_epochs": 18,
}


def main():
    schedule.take("short", **SHORT)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "SparseVD", build, vgglike.units, data.standardised)
    start = FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder)
    model = run.build(dense=sparse_vd.Dense, conv=sparse_vd.Conv2D)
    original = run.build(norm=keras.layers.Identity)
    experiment.set_weights(original, start)
    original = run.normalised(original)
    sparse_variational_dropout.start_from(model, original)
    how = {"course": schedule.course(), **regularisation.options()}
    model = sparse_variational_dropout.train(run, model, **how)
    sparse_variational_dropout.rewind(model, original)
    tuned = retraining.retrain(run, original, **how)
    run.finish(model, tuned, half=True, zero_weights=sparse_vd.zero_share(model))


if __name__ == "__main__":
    command_line.run(main)
