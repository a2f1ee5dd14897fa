"""Training on random labels: binary dropout memorizes them, SBP removes every unit and predicts a constant.

LeNet5, MNIST, seed 0, 200 epochs: dropout 4.63% training and 89.88% test error, SBP 89.85% and 90.23%.

    python scripts/random-labels.py                   # 84 and 33 minutes on one core
    python scripts/random-labels.py --network=vgglike --width=0.25 --precision=bfloat16    # 17.86, 90.32; 89.83, 90.13

Trials: docs/trials.md#random-labels
"""

import functools
import itertools
import sys

import keras
from absl import flags

from keras_sbp.nets import NETWORKS, vgglike
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import schedule
from keras_sbp.utils.io import command_line, data, figures, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import sbp as structured_bp
from keras_sbp.utils.training import updates

FLAGS = flags.FLAGS
# {--network: (its name, what the defaults of its flags are)}
CHOICES = {
    "lenet5": ("LeNet5", {"dataset": "mnist-random"}),
    "vgglike": (
        "VGG-like",
        {"dataset": "cifar10-random", "epochs": 120, "batch_size": 128, "learning_rate": 0.03, "dropout": 0.02},
    ),
}
METHODS = {"dropout": "Dropout", "sbp": "StructuredBP"}
# The curve of the training error is that of so many images; the last point, in the table, that of all.
MEASURED = 10_000

flags.DEFINE_enum("network", "lenet5", CHOICES, "The network.")
flags.DEFINE_enum("method", None, METHODS, "Train with this one only. Default: both, one after the other.")
flags.DEFINE_float("kernel_rate", 1.5e-3, "Muon's rate for the kernels of convolutions, of VGG-like only.", 0)
flags.DEFINE_float("dropout", 0.1, "The share of units that binary dropout drops.", 0, 1)
figures.define_folder()
experiment.define_flags(dataset="mnist-random", epochs=200, batch_size=512, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="1")
schedule.define_width()


def main():
    for name, value in CHOICES[FLAGS.network][1].items():
        FLAGS.set_default(name, value)
    if FLAGS.width != 1 and FLAGS.network != "vgglike":
        raise UserError(f"--width={FLAGS.width:g} is of VGG-like: leave it out, or give --network=vgglike")
    base = (FLAGS.checkpoints_dir or experiment.run_folder(f"random-labels-{FLAGS.network}")).rstrip("/")
    folders = {method: f"{base}-{method}" for method in METHODS}
    summaries = {method: f"{(FLAGS.summaries_dir or base).rstrip('/')}-{method}" for method in METHODS}
    if FLAGS.method:
        FLAGS.checkpoints_dir, FLAGS.summaries_dir = folders[FLAGS.method], summaries[FLAGS.method]
        return train()
    for method in METHODS:
        command_line.call([sys.executable, *sys.argv, f"--method={method}"])
    show_table({method: report.read(folder) for method, folder in folders.items()})
    curves = {method: figures.curves(folder) for method, folder in summaries.items()}
    if all(curves.values()):
        return draw(curves)
    print(f"no summaries in {base}-*, so no picture; to train anew, give another --checkpoints_dir", file=sys.stderr)


def train():
    """One method's run."""
    name = CHOICES[FLAGS.network][0]
    _, build, units = NETWORKS[name]
    if FLAGS.width != 1:
        build = functools.partial(build, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name(name), METHODS[FLAGS.method], build, units, data.standardised)
    test = run.test_set()

    def error(model, split, count=None):
        images = data.Images(split.images[:count], split.labels[:count])
        return experiment.error(model, images, data.standardised)

    noise = {"dropout": lambda name: keras.layers.Dropout(FLAGS.dropout, name=name), "sbp": structured_bp.unit}
    model = run.build(unit=noise[FLAGS.method])
    if FLAGS.network == "vgglike":
        vgglike.start_as_identity(model)
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    model = run.train(
        model,
        training.Objective(structured_bp.kl(model) if FLAGS.method == "sbp" else None, FLAGS.weight_decay),
        muon(len(run.train_set.labels)) if FLAGS.network == "vgglike" else training.Updates(structured_bp.rate),
        shrink_every=FLAGS.shrink_every,
        measure=lambda model: {
            "training_error": error(model, run.train_set, MEASURED),
            "test_error": error(model, test, MEASURED),
        },
    )
    run.finish(model, train_error=error(model, run.train_set))


def muon(images):
    """How VGG-like is trained on so many images: Adam for the noise, and else as the Original of vgglike.py."""
    noise = FLAGS.noise_learning_rate
    if noise in (FLAGS.kernel_rate, FLAGS.learning_rate / images):
        raise UserError(f"--noise_learning_rate={noise:g} is also a rate of the weights: choose another")

    def rate(variable):
        if variable.name in ("mu", "log_sigma"):
            return noise
        return FLAGS.kernel_rate if len(variable.shape) == 4 else FLAGS.learning_rate / images

    def optimizer(course, group):
        return (updates.adam if course.rate == noise else updates.muon)(course, group)

    return training.Updates(rate, optimizer=optimizer)


def title():
    return f"{schedule.network_name(CHOICES[FLAGS.network][0])} on {report.DATASET_NAMES[FLAGS.dataset]}"


def show_table(results):
    print(f"{title():<32}{'Training error %':>16}{'Test error %':>14}   Units per layer")
    for method, result in results.items():
        left = " - ".join(map(str, result["units"]))
        print(f"{METHODS[method]:<32}{result['train_error']:>16.2f}{result['error']:>14.2f}   {left}")


def draw(curves):
    figure, (errors, units) = figures.plt.subplots(1, 2, figsize=(7, 2.8))
    for method, name in METHODS.items():
        colour, marker = figures.METHODS[name]
        for split, line in (("training", "-"), ("test", ":")):
            style = {"color": colour, "linestyle": line, "marker": marker, "markevery": 0.2}
            errors.plot(*curves[method][f"{split}_error"], label=f"{name}, {split}", **style)
    errors.set(xlabel="epoch", ylabel="error, %", ylim=(0, 100), title=title())
    errors.legend(fontsize=7, loc="center right")
    layers = [name for name in curves["sbp"] if name.startswith("units/")]
    for name, colour, marker in zip(layers, itertools.cycle(figures.COLOURS), itertools.cycle(figures.MARKERS)):
        label = name.removeprefix("units/").removesuffix("_unit")
        units.plot(*curves["sbp"][name], color=colour, marker=marker, markevery=0.2, label=label)
    units.set_yscale("symlog", linthresh=1)
    units.yaxis.set_major_formatter("{x:g}")
    units.set(xlabel="epoch", ylim=-0.1, title="units alive, StructuredBP")
    units.legend(fontsize=7, ncols=1 + len(layers) // 8)
    figures.save(figure, f"random-labels-{FLAGS.network}")


if __name__ == "__main__":
    command_line.run(main)
