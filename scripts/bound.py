"""The evidence lower bound of Lenet-fc on MNIST over epochs: mu fixed at 0, and mu and sigma both learned.

After 100 epochs, seed 0: -1,518 nats with mu fixed, -1,422 with both learned.

    python scripts/bound.py                           # 6 minutes for each on one core

How the bound is estimated: docs/trials.md#bound
"""

import sys

import numpy as np
from absl import flags

from keras_sbp.utils import experiment
from keras_sbp.utils.experiment.flags import define_data_dir, define_figures_dir
from keras_sbp.utils.io import command_line, data, figures, report
from keras_sbp.utils.io.command_line import UserError

FLAGS = flags.FLAGS
RUNS = {"mu-fixed": ("mu fixed at 0", ["--fixed_mu"]), "mu-learned": ("mu and sigma learned", [])}

flags.DEFINE_enum("dataset", "mnist", list(data.DATASETS), "The data set; digits needs no download.")
flags.DEFINE_integer("epochs", 100, "Epochs of each run.", lower_bound=1)
define_data_dir()
flags.DEFINE_string(
    "checkpoints_dir",
    None,
    "The runs' folders, less their ends, -mu-fixed and -mu-learned. Default: checkpoints/bound-DATASET.",
)
define_figures_dir()


def main():
    base = (FLAGS.checkpoints_dir or f"{experiment.ROOT}/checkpoints/bound-{FLAGS.dataset}").rstrip("/")
    folders = [f"{base}-{end}" for end in RUNS]
    count = len(data.load(FLAGS.dataset, FLAGS.data_dir, "train").labels)
    for folder, (_, arguments) in zip(folders, RUNS.values()):
        # No unit leaves, dead or not: the bound is of the same model at every epoch.
        same = [f"--{name}={FLAGS[name].value}" for name in ("dataset", "epochs", "data_dir")]
        script = str(experiment.ROOT / "scripts" / "lenet-fc-sbp.py")
        command_line.call(
            [sys.executable, script, f"--checkpoints_dir={folder}", "--shrink_every=0", *same, *arguments]
        )

    axes, early = figures.plt.figure(figsize=(4.5, 3)).gca(), []
    title = f"Lenet-fc on {data.DATASETS[FLAGS.dataset].title}"
    print(f"{title:<26}{'Bound, nats':>13}{'Error %':>10}   Units per layer")
    for index, (folder, (label, _)) in enumerate(zip(folders, RUNS.values())):
        result = report.read(folder)
        curves = figures.curves(folder)
        if not curves:
            raise UserError(f"no summaries in {folder}: to train again, choose another --checkpoints_dir")
        epochs, bound = evidence_lower_bound(curves, count)
        print(f"{label:<26}{bound[-1]:>13,.0f}{result['error']:>10.2f}   {' - '.join(map(str, result['units']))}")
        color, marker = figures.COLORS[index], figures.MARKERS[index]
        axes.plot(epochs, np.array(bound) / 1000, color=color, marker=marker, markevery=0.1, label=label)
        early.append(bound[len(bound) // 20] / 1000)
    # The first epochs would flatten the rest.
    axes.set_ylim(bottom=min(early))
    axes.set(xlabel="epoch", ylabel="evidence lower bound, 1,000 nats", title=title)
    axes.legend(loc="lower right")
    figures.save(axes.figure, FLAGS.figures_dir, "bound" if FLAGS.dataset == "mnist" else f"bound-{FLAGS.dataset}")


def evidence_lower_bound(curves, count):
    """Epochs, and the mean over each of the bound's estimate in nats: that of `count` images."""
    epochs, loss = curves["loss"]
    return epochs, [-(count * cross_entropy + kl) for cross_entropy, kl in zip(loss, curves["kl"][1], strict=True)]


if __name__ == "__main__":
    command_line.run(main)
