"""Random labels: what a network makes of images whose labels mean nothing, with binary dropout and with SBP.

Labels drawn at random can only be learnt by heart. A network with binary dropout does that; SBP, whose bound pays for
every unit, takes all units out: the simplest model is a constant, and its error is 90 % on any images.

TODO evidence
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from nets import lenet5
from utils import command_line, data, experiment, figures, report, structured_bp

FLAGS = flags.FLAGS
# {--network: (its name, how it is built, its units, its data set, what it reads of uint8 images)}
NETWORKS = {
    "lenet5": ("LeNet5", lenet5.lenet5, lenet5.units, "mnist-random", data.scaled),
}
METHODS = {"dropout": "Dropout", "sbp": "StructuredBP"}
# The curve of the training error is that of so many images; the last point, in the table, that of all.
MEASURED = 10_000

flags.DEFINE_enum("network", "lenet5", NETWORKS, "The network.")
flags.DEFINE_enum("method", None, METHODS, "Train with this one only. Default: both, one after the other.")
flags.DEFINE_float("dropout", 0.1, "The share of units that binary dropout drops.", 0, 1)
flags.DEFINE_string("figures_dir", None, "Where the picture goes. Default: docs/figures.")
experiment.define_flags(dataset="mnist-random", epochs=100, batch_size=64, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="1")


def main():
    FLAGS.set_default("dataset", NETWORKS[FLAGS.network][3])
    base = FLAGS.checkpoints_dir or experiment.run_folder(f"random-labels-{FLAGS.network}")
    folders = {method: f"{base}-{method}" for method in METHODS}
    if FLAGS.method:
        FLAGS.checkpoints_dir = folders[FLAGS.method]
        return train()
    for method in METHODS:
        command_line.call([sys.executable, *sys.argv, f"--method={method}"])
    show(folders)


def train():
    """One method's run."""
    name, build, units, _, prepare = NETWORKS[FLAGS.network]
    run = experiment.Experiment(name, METHODS[FLAGS.method], build, units)
    test = data.load(FLAGS.dataset, run.data_dir, "held_out" if FLAGS.validate else "test", FLAGS.seed)

    def error(model, split, count=None):
        return experiment.error(model, data.Images(split.images[:count], split.labels[:count]), prepare)

    noise = {"dropout": lambda name: keras.layers.Dropout(FLAGS.dropout, name=name), "sbp": structured_bp.unit}
    with run.strategy.scope():
        model = build(unit=noise[FLAGS.method])
    if FLAGS.checkpoint:
        run.start_from(FLAGS.checkpoint, model)
    model = run.train(
        model,
        prepare=lambda images, seed: prepare(images),
        shrink_every=FLAGS.shrink_every,
        rate=structured_bp.rate,
        kl=structured_bp.kl(model) if FLAGS.method == "sbp" else None,
        measure=lambda model: {
            "train_error": error(model, run.train_set, MEASURED),
            "test_error": error(model, test, MEASURED),
        },
    )
    run.finish(model, prepare, train_error=error(model, run.train_set))


def show(folders):
    """Table and picture of both methods' runs."""
    title = f"{NETWORKS[FLAGS.network][0]} on {report.DATASET_NAMES[FLAGS.dataset]}"
    figure, (errors, units) = figures.plt.subplots(1, 2, figsize=(7, 2.8))
    print(f"{title:<32}{'Training error %':>16}{'Test error %':>14}   Units a layer")
    for method, folder in folders.items():
        name, result, curves = METHODS[method], report.read(folder), figures.curves(folder)
        left = " - ".join(map(str, result["units"]))
        print(f"{name:<32}{result['train_error']:>16.2f}{result['error']:>14.2f}   {left}")
        colour, marker = figures.METHODS[name]
        for split, line in (("train", "-"), ("test", ":")):
            style = {"color": colour, "linestyle": line, "marker": marker, "markevery": 0.2}
            label = f"{name}, {'training' if split == 'train' else split}"
            errors.plot(*curves[f"{split}_error"], label=label, **style)
    errors.set(xlabel="epoch", ylabel="error, %", ylim=(0, 100), title=title)
    errors.legend(fontsize=7, loc="lower left")
    # The last curves are SBP's.
    layers = [name for name in curves if name.startswith("units/")]
    for name, colour, marker in zip(layers, itertools.cycle(figures.COLOURS), itertools.cycle(figures.MARKERS)):
        label = name.removeprefix("units/").removesuffix("_unit")
        units.plot(*curves[name], color=colour, marker=marker, markevery=0.2, label=label)
    units.set_yscale("symlog", linthresh=1)
    units.yaxis.set_major_formatter("{x:g}")
    units.set(xlabel="epoch", ylim=0, title="units alive, StructuredBP")
    units.legend(fontsize=7)
    figures.save(figure, f"random-labels-{FLAGS.network}", FLAGS.figures_dir)


if __name__ == "__main__":
    command_line.run(main)
