"""Training on random labels: binary dropout memorizes them, SBP removes every unit and predicts a constant.

LeNet5, MNIST, seed 0, 200 epochs: dropout 4.63% training and 89.88% test error, SBP 89.85% and 90.23%.

    python scripts/random-labels.py                   # 84 and 33 minutes on one core
    python scripts/random-labels.py --network=vgglike --width=0.25 --precision=bfloat16    # 17.86, 90.32; 89.83, 90.13

Trials: docs/trials.md#random-labels
"""

import dataclasses
import functools
import itertools
import sys

import keras
from absl import flags

from keras_sbp.nets import NETWORKS, vgglike
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import Experiment, Settings, testing
from keras_sbp.utils.experiment import flags as experiment_flags
from keras_sbp.utils.experiment.main import log_file
from keras_sbp.utils.experiment.session import run_or_show
from keras_sbp.utils.io import command_line, data, figures, preprocessing, report, terminal
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods import Method, StructuredBP
from keras_sbp.utils.training import updates

FLAGS = flags.FLAGS
TITLES = {"lenet5": "LeNet5", "vgglike": "VGG-like"}
METHODS = {"dropout": "Dropout", "sbp": "StructuredBP"}
COMMON = {"noise_learning_rate": 5e-2, "shrink_every": 5}
# The defaults of a network's flags.
DEFAULTS = {
    "lenet5": COMMON
    | {"dataset": "mnist-random", "epochs": 200, "batch_size": 512, "learning_rate": 1e-3, "dropout": 0.1},
    "vgglike": COMMON
    | {
        "dataset": "cifar10-random",
        "epochs": 120,
        "batch_size": 128,
        "learning_rate": 0.03,
        "kernel_learning_rate": 1.5e-3,
        "dropout": 0.02,
    },
}
# The curve of the training error is that of the first images; the value in the table that of all.
NUM_MEASURED = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Method):
    """Binary dropout, by Adam or, with `kernel_learning_rate`, as VGG-like's Original by Muon."""

    dropout: float = option(0.1, "Rate of binary dropout.", at_least=0, at_most=1)
    kernel_learning_rate: float = option(0.0, "Muon's learning rate for convolutions. 0: Adam for all.", at_least=0)

    def unit(self, name: str) -> keras.layers.Dropout:
        return keras.layers.Dropout(self.dropout, name=name)

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        if not self.kernel_learning_rate:
            return training.Updates(lambda variable: self.learning_rate, self.warmup, self.decay_start)
        rest = self.learning_rate / num_examples
        muon = functools.partial(updates.muon, compute_dtype=model.compute_dtype)
        return training.Updates(
            lambda variable: self.kernel_learning_rate if len(variable.shape) == 4 else rest,
            self.warmup,
            self.decay_start,
            muon,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomLabels(StructuredBP, Dropout):
    """StructuredBP, whose weights are trained as with dropout. Its fields are the flags of both."""

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        if not self.kernel_learning_rate:
            return super().updates(model, num_examples)
        weights, noise = Dropout.updates(self, model, num_examples), self.noise_learning_rate
        if noise in map(weights.rate, model.trainable_variables):
            raise UserError(f"--noise_learning_rate={noise:g} is also a rate of the weights: choose another")

        def optimizer(schedule, name):
            return updates.adam(schedule, name) if schedule.rate == noise else weights.optimizer(schedule, name)

        def rate(variable):
            return (self if variable.name in ("mu", "log_sigma") else weights).rate(variable)

        return dataclasses.replace(weights, rate=rate, optimizer=optimizer)


flags.DEFINE_enum("network", "lenet5", list(TITLES), "The network.")
flags.DEFINE_enum("method", None, list(METHODS), "Train with this one only. Default: both, one after the other.")
experiment_flags.define_figures_dir()
experiment_flags.define(Settings, RandomLabels, defaults=DEFAULTS["lenet5"])


def main():
    experiment_flags.set_defaults(DEFAULTS[FLAGS.network])
    script = experiment_flags.script(Settings)
    base = (FLAGS.checkpoints_dir or script.directory(f"random-labels-{FLAGS.network}")).rstrip("/")
    directories = {method: f"{base}-{method}" for method in METHODS}
    summaries = {method: f"{(FLAGS.summaries_dir or base).rstrip('/')}-{method}" for method in METHODS}
    if FLAGS.method:
        directory, summary = directories[FLAGS.method], summaries[FLAGS.method]
        settings = dataclasses.replace(
            experiment_flags.read(Settings), checkpoints_dir=directory, summaries_dir=summary
        )
        method = experiment_flags.read({"dropout": Dropout, "sbp": RandomLabels}[FLAGS.method])
        network, name = NETWORKS[TITLES[FLAGS.network]], METHODS[FLAGS.method]
        standardize = preprocessing.standardize
        with terminal.quiet(log_file(directory, settings)):
            run_or_show(Experiment(network, name, settings, method, preprocess=standardize, script=script), train)
        return
    for method in METHODS:
        command_line.call([sys.executable, *sys.argv, f"--method={method}"])
    show_table({method: report.read(directory) for method, directory in directories.items()})
    curves = {method: figures.curves(directory) for method, directory in summaries.items()}
    if all(curves.values()):
        draw(curves)
    else:
        print(
            f"no summaries in {base}-*, so no figure; to train again, choose another --checkpoints_dir", file=sys.stderr
        )


def train(run):
    """One method's run."""
    test = run.test_set()

    def error(model, images, count=None):
        return testing.error(model, data.Images(images.images[:count], images.labels[:count]), run.preprocess)

    model = run.build(unit=run.method.unit)
    if FLAGS.network == "vgglike":
        vgglike.start_as_identity(model)
    if run.settings.checkpoint:
        experiment.load_weights(run, model, run.settings.checkpoint)
    model = run.train(
        model,
        measure=lambda model: {
            "training_error": error(model, run.train_set, NUM_MEASURED),
            "test_error": error(model, test, NUM_MEASURED),
        },
    )
    return run.finish(model, train_error=error(model, run.train_set))


def title():
    name, width = TITLES[FLAGS.network], "" if FLAGS.width == 1 else f", k = {FLAGS.width:g}"
    return f"{name}{width} on {data.DATASETS[FLAGS.dataset].title}"


def show_table(results):
    print(f"{title():<32}{'Training error %':>16}{'Test error %':>14}   Units per layer")
    for method, result in results.items():
        units = " - ".join(map(str, result["units"]))
        print(f"{METHODS[method]:<32}{result['train_error']:>16.2f}{result['error']:>14.2f}   {units}")


def draw(curves):
    figure, (errors, units) = figures.plt.subplots(1, 2, figsize=(7, 2.8))
    for method, name in METHODS.items():
        color, marker = figures.METHODS[name]
        for split, line in (("training", "-"), ("test", ":")):
            style = {"color": color, "linestyle": line, "marker": marker, "markevery": 0.2}
            errors.plot(*curves[method][f"{split}_error"], label=f"{name}, {split}", **style)
    errors.set(xlabel="epoch", ylabel="error, %", ylim=(0, 100), title=title())
    errors.legend(fontsize=7, loc="center right")
    layers = [name for name in curves["sbp"] if name.startswith("units/")]
    for name, color, marker in zip(layers, itertools.cycle(figures.COLORS), itertools.cycle(figures.MARKERS)):
        label = name.removeprefix("units/").removesuffix("_unit")
        units.plot(*curves["sbp"][name], color=color, marker=marker, markevery=0.2, label=label)
    units.set_yscale("symlog", linthresh=1)
    units.yaxis.set_major_formatter("{x:g}")
    units.set(xlabel="epoch", ylim=-0.1, title="live units, StructuredBP")
    units.legend(fontsize=7, ncols=1 + len(layers) // 8)
    figures.save(figure, FLAGS.figures_dir, f"random-labels-{FLAGS.network}")


if __name__ == "__main__":
    command_line.run(main)
