"""Why LeNet5's first filters stay: what the authors' code does in another way than ours, each by itself.

    python scripts/switches.py --switches=same,mean --seed=1 --checkpoints_dir=DIR    # one line of JSON
    python scripts/switches.py --table=DIR/*.json                                     # the table of docs/reproduction.md

Each run trains LeNet5 for 5 epochs, then with noise on the plain bound for 15, as the paper has it: no start with the
KL divergence scaled. 2e-2 for mu and log sigma takes them as far as the authors' 1e-3 does in 200 epochs. On 50,000
training images; errors are of the 10,000 held out, the noise at its mean and the dead units at 0.

once: nothing switched. twice: the KL divergence counts twice. convolutions: no noise on the inputs of the dense layers.
before_bias: theta multiplies what a convolution sums up, before bias, ReLU and pooling. mean: the mean image is
subtracted. no_decay: the weights it starts from were trained without decay. same: padding "same". cut: gradients of mu
and log sigma are 0 outside of the box, and nothing brings them back. order: every epoch has the images in one order.
long: the weights it starts from are trained for 40 epochs at a rate of 4e-3, as far as Adam goes in 160 at 1e-3.
"""

import functools
import json
import statistics
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from layers.sbp import BOX, SBP
from nets import lenet5
from utils import experiment, training
from utils.experiment import testing
from utils.plumbing import command_line, data, report

FLAGS = flags.FLAGS
SWITCHES = ("twice", "convolutions", "before_bias", "mean", "no_decay", "same", "cut", "order", "long")
experiment.define_flags(dataset="mnist", epochs=15, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
flags.DEFINE_float("noise_learning_rate", 2e-2, "Adam's rate for mu and log sigma.", 0)
flags.DEFINE_multi_enum("switch", [], SWITCHES, "What is as in the authors' code.")
flags.DEFINE_list("table", [], "Files of results to make the table of; nothing is trained.")


@keras.saving.register_keras_serializable("switches")
class Cut(SBP):
    """Noise whose parameters are cut to the box in the graph, not projected into it after an update."""

    def build(self, input_shape):
        super().build(input_shape)
        for variable in self.trainable_variables:
            variable.constraint = None
        self.raw = {name: getattr(self, name) for name in ("mu", "log_sigma")}

    def __getattribute__(self, name):
        if name in ("mu", "log_sigma") and "raw" in self.__dict__:
            variable = self.raw[name]
            return types.SimpleNamespace(shape=variable.shape, value=tf.clip_by_value(variable.value, *BOX))
        return super().__getattribute__(name)


@keras.saving.register_keras_serializable("switches")
class Bias(keras.layers.Layer):
    """Adds a bias a channel."""

    def build(self, input_shape):
        self.bias = self.add_weight(shape=input_shape[-1:], name="bias")

    def call(self, inputs):
        return inputs + self.bias


def network(noise, on):
    """LeNet5 with the switches of `on`; noise: from a name to the layer after the units of that name."""
    inputs = x = keras.Input((28, 28, 1))
    padding = "same" if "same" in on else "valid"
    for name, filters in (("conv1", 20), ("conv2", 50)):
        x = keras.layers.Conv2D(filters, 5, padding=padding, use_bias=False, name=name)(x)
        x = noise(f"{name}_unit")(x) if "before_bias" in on else x
        x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(Bias(name=f"{name}_bias")(x)))
        x = x if "before_bias" in on else noise(f"{name}_unit")(x)
    dense = keras.layers.Identity if "convolutions" in on else lambda name: noise(name)
    x = dense(name="features_unit")(keras.layers.Flatten()(x))
    x = keras.layers.Dense(500, activation="relu", name="dense1")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(dense(name="dense1_unit")(x)))


def living(model, images):
    """[units of each layer with ReLU that are more than 0 for one of the images]."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)] + [model.get_layer("dense1")]
    found = keras.Model(model.inputs, [layer.output for layer in layers])(images)
    return [int(tf.reduce_sum(tf.cast(tf.reduce_max(x, range(len(x.shape) - 1)) > 0, tf.int32))) for x in found]


def main():
    if FLAGS.table:
        return table([json.loads(line) for path in FLAGS.table for line in Path(path).read_text().splitlines()])
    on, folder = FLAGS.switch, Path(FLAGS.checkpoints_dir)
    FLAGS.validate = True
    FLAGS.checkpoints_dir = str(folder / "-".join([*on, "run", str(FLAGS.seed)]))
    run = experiment.Experiment("LeNet5", "switches", lenet5.lenet5, lenet5.units, data.scaled)
    mean = np.mean(run.train_set.images, 0) / 255 if "mean" in on else 0.0
    prepare = lambda images, seed=None: data.scaled(images) - mean  # noqa: E731
    held_out = run.test_set()

    def train(model, path, epochs, kl, decay, rates, **options):
        path.mkdir(parents=True, exist_ok=True)
        batches = training.Batches(run.train_set, prepare, FLAGS.batch_size, FLAGS.seed, run.strategy)
        if "order" in on:
            fixed = batches.order(0)
            batches.order = lambda epoch: fixed
        how = {"objective": training.Objective(kl, decay), "updates": training.Updates(rates), "epochs": epochs}
        make = functools.partial(training.Step, batches=batches, strategy=run.strategy, **how)
        return training.train(model, make, run.strategy, str(path), run="-".join(on), **options)[0]

    decay = 0.0 if "no_decay" in on else 5e-4
    dense = network(lambda name: keras.layers.Identity(), on)
    start = folder / "-".join(
        ["start", *(name for name in on if name in ("mean", "no_decay", "same", "order", "long"))]
    )
    epochs, start_rate = (40, 4e-3) if "long" in on else (5, 1e-3)
    dense = train(dense, start / str(FLAGS.seed), epochs, None, decay, lambda variable: start_rate)
    before = living(dense, prepare(held_out.images[:2000]))
    layer = Cut if "cut" in on else SBP
    model = network(lambda name: layer(name=name), on)
    stored = {variable.path: variable for variable in dense.weights}
    for variable in model.weights:
        if variable.path in stored:
            variable.assign(stored[variable.path])
    noises = lambda model: [layer for layer in model.layers if isinstance(layer, SBP)]  # noqa: E731
    kl = lambda model: tf.add_n([tf.reduce_sum(noise.kl_divergence()) for noise in noises(model)])  # noqa: E731
    scale, epochs = 2.0 if "twice" in on else 1.0, []

    def measure(model):
        living = [int(np.sum(noise.alive())) for noise in noises(model)]
        epochs.append((testing.error(model, held_out, prepare), living))
        return {}

    def rate(variable):
        return FLAGS.noise_learning_rate if variable.name in ("mu", "log_sigma") else FLAGS.learning_rate

    model = train(
        model,
        Path(run.folder),
        FLAGS.epochs,
        lambda model, done: scale * kl(model),
        0.0,
        rate,
        measure=measure,
    )
    losses = []
    for images, labels in tf.data.Dataset.from_tensor_slices(run.train_set).batch(128):
        logits = model(prepare(images), training=True)
        losses.append(float(tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))))
    error, units = epochs[-1]
    best, at_best = min(epochs, key=lambda epoch: epoch[0])
    line = {
        "on": on,
        "seed": FLAGS.seed,
        "before": before,
        "error": error,
        "units": units,
        "bound": -sum(losses) - float(kl(model)),
    }
    (folder / f"{'-'.join([*on, str(FLAGS.seed)])}.json").write_text(
        json.dumps({**line, "best": best, "units_at_best": at_best}) + "\n"
    )


def multiply_adds(units, on):
    """Of LeNet5 with so many units; without noise on the dense layers' inputs, a filter takes its features along."""
    side = (28, 14, 7) if "same" in on else (24, 8, 4)
    first, second = units[:2]
    features, neurons = units[2:] or (side[2] ** 2 * second, 500)
    return side[0] ** 2 * 25 * first + side[1] ** 2 * 25 * first * second + features * neurons + 10 * neurons


def table(lines):
    """Print a row a set of switches: means over the seeds."""
    cells = [
        ("Switch", "Seeds", "Before", "Units", "Error %", "FLOPs", "Bound, nats", "Best epoch, error %", "its units")
    ]
    for on in sorted({tuple(line["on"]) for line in lines}, key=lambda on: (len(on), on)):
        runs = [line for line in lines if tuple(line["on"]) == on]
        before, units, best = (
            " - ".join(f"{statistics.fmean(column):.0f}" for column in zip(*(run[key] for run in runs)))
            for key in ("before", "units", "units_at_best")
        )
        whole = multiply_adds([20, 50], on)
        times = statistics.fmean(whole / multiply_adds(run["units"], on) for run in runs)
        error, bound, at_best = (statistics.fmean(run[key] for run in runs) for key in ("error", "bound", "best"))
        name = ", ".join(on) or "once"
        figures = f"{error:.2f}", f"{times:.2f}x", f"{bound:,.0f}", f"{at_best:.2f}"
        cells.append((name, str(len(runs)), before, units, *figures, best))
    print(report.aligned(cells, "<>>>>>>>>"))


if __name__ == "__main__":
    command_line.run(main)
