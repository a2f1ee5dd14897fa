"""Draws pictures from finished runs. It trains nothing.

    python scripts/figures.py --figures_dir=docs/figures    # those of the docs

pixels: SNR of Lenet-fc's 784 pixels. vgglike-units: units per layer. error-flops-NETWORK: error over MACs saved, ours,
the paper's and other papers'. units-epochs: live units over epochs. pixels and units-epochs need runs of your own; what
is missing is listed on stderr with the command that makes it. bound.py, random-labels.py and threshold.py draw theirs.
"""

import re
import sys
from pathlib import Path

import numpy as np
from absl import flags

from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment.flags import define_data_dir, define_figures_dir
from keras_sbp.utils.io import checkpoint, command_line, data, figures, paper, report

FLAGS = flags.FLAGS
# Whose units over epochs are shown.
PRUNED = ("lenet-fc-sbp", "lenet-fc-sbpc", "lenet5-sbp", "lenet5-sbpc")

flags.DEFINE_string(
    "checkpoints_dir",
    None,
    "The folder of the runs' folders. Default: checkpoints, and of results checkpoints/published.",
)
define_figures_dir()
define_data_dir()


def main():
    runs = Path(FLAGS.checkpoints_dir or experiment.ROOT / "checkpoints")
    results = rows(runs if FLAGS.checkpoints_dir else runs / "published")
    for network in paper.OTHERS:
        error_against_flops(network, results)
    vgglike_units(results)
    units_over_epochs(runs)
    pixels(runs / "lenet-fc-sbp")


def rows(runs):
    """{(network, method): results} of the rows of the tables, but for the paper's settings, on the paper's data."""
    found = {}
    for folder in sorted(path.parent for path in runs.glob("*/result.json")):
        script = re.fullmatch(rf"(.*?)({'|'.join(report.KINDS)})(-seed\d+)?", folder.name)[1]
        result = report.read(folder)
        dataset, _ = paper.TABLES.get(result["network"], ("cifar10", {}))
        if result["settings"].get("schedule") == "paper" or result["dataset"] != dataset:
            continue
        if (experiment.ROOT / "scripts" / f"{script}.py").exists():
            found.setdefault((result["network"], result["method"]), []).append(result)
    return found


def lacking(name, command):
    print(f"{name}: not drawn, it needs a run of python scripts/{command}", file=sys.stderr)


def error_against_flops(network, results):
    """Ours filled, half if images were shifted: mean over seeds, 95 % interval; the paper's open; others' by name."""
    name = "error-flops-" + re.sub(r"\W+", "-", network.lower())
    own = {method: runs for (of, method), runs in results.items() if of == network}
    if not own:
        return lacking(name, f"NAME.py for {network}")
    axes = figures.plt.figure(figsize=(5.2, 3.3)).gca()
    _, theirs = paper.TABLES.get(network, (None, {}))
    for method, (color, marker) in figures.METHODS.items():
        style = {"color": color, "marker": marker, "markersize": 7, "linestyle": ""}
        runs = [run for run in own.get(method, []) if run["flops_speedup"]]
        for number, (kind, alike) in enumerate(report.by_kind(runs).items()):
            (x, width), (y, height) = map(
                report.interval, zip(*((run["flops_speedup"], run["error"]) for run in alike))
            )
            style |= {"fillstyle": "left" if "shift" in kind else "full", "label": "" if number else f"{method}, ours"}
            axes.errorbar(x, y, height, width, **style)
        if method in theirs:
            row = theirs[method]
            axes.plot(row.flops, row.error, **style | {"fillstyle": "none", "label": f"{method}, paper"})
    figures.use_log_scale(axes, "x")
    axes.set(xlabel="MACs saved, ×", ylabel="test error, %", title=network)
    if any("shift" in kind for runs in own.values() for kind in report.by_kind(runs)):
        axes.plot([], [], "o", color="grey", fillstyle="left", markersize=7, label="ours, shifted images")
    others = paper.OTHERS[network]
    axes.plot(*zip(*((row.flops, row.error) for row in others.values())), "x", color="grey", label="other papers")
    axes.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5))
    figures.annotate(axes, {method: (row.flops, row.error) for method, row in others.items()})
    figures.save(axes.figure, FLAGS.figures_dir, name)


def vgglike_units(results):
    """A curve a method over the 14 layers, its CPU speed-up at its name: the paper's above, ours below."""
    network = "VGG-like"
    own = {method: runs[0] for (of, method), runs in results.items() if of == network}
    if not own:
        return lacking("vgglike-units", "vgglike.py, vgglike-sbp.py, vgglike-sbpa.py and vgglike-sbpc.py")
    theirs = {method: {"units": row.units, "cpu_speedup": row.cpu} for method, row in paper.TABLES[network][1].items()}
    figure, panels = figures.plt.subplots(2, 1, figsize=(6.5, 5), sharex=True, sharey=True)
    for axes, title, table in zip(panels, ("the paper", "ours"), (theirs, own)):
        for method, (color, marker) in figures.METHODS.items():
            if method in table:
                label = f"{method} {table[method]['cpu_speedup']:.2f}x"
                layers = range(1, len(table[method]["units"]) + 1)
                axes.plot(layers, table[method]["units"], color=color, marker=marker, label=label)
        axes.set(ylabel="units", title=f"{network}, {title}")
        axes.legend(title="CPU speed-up", fontsize=7, title_fontsize=7, loc="upper left")
    panels[-1].set(xlabel="layer", xticks=layers)
    figures.save(figure, FLAGS.figures_dir, "vgglike-units")


def units_over_epochs(runs):
    """A panel a run, a curve a layer of noise."""
    curves = {script: figures.curves(runs / script) for script in PRUNED}
    curves = {script: curve for script, curve in curves.items() if curve}
    for script in PRUNED:
        if script not in curves:
            lacking(f"units-epochs, {script}", f"{script}.py")
    if not curves:
        return
    figure, panels = figures.plt.subplots(1, len(curves), figsize=(1 + 1.8 * len(curves), 3), squeeze=False)
    for axes, (script, curve) in zip(panels[0], curves.items()):
        layers = [name for name in curve if name.startswith("units/")]
        for name, color, marker in zip(layers, figures.COLORS, figures.MARKERS):
            label = name.removeprefix("units/").removesuffix("_unit")
            axes.plot(*curve[name], color=color, marker=marker, markevery=0.2, label=label)
        figures.use_log_scale(axes, "y")
        axes.set(title=script, xlabel="epoch")
        axes.legend(fontsize=7, ncols=2, columnspacing=1, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0, 0].set_ylabel("units alive")
    figures.save(figure, FLAGS.figures_dir, "units-epochs")


def pixels(folder):
    """The map of what Lenet-fc listens to, from the training checkpoint: git holds the smaller network only."""
    arrays = checkpoint.latest(folder)
    if not arrays:
        return lacking("pixels", "lenet-fc-sbp.py")
    snr = figures.pixel_snr(training.load_network(arrays))
    mean = data.load("mnist", FLAGS.data_dir, "train").images.mean(0)[..., 0]
    figure, (left, right) = figures.plt.subplots(1, 2, figsize=(6, 2.7))
    image = left.imshow(snr, norm="log", cmap="cividis_r")
    figure.colorbar(image, ax=left, shrink=0.85, format="{x:g}", ticks=[1, 2, 5, 10, 20, 50]).minorticks_off()
    live = np.isfinite(snr).sum()
    left.set_title(f"SNR: {live} pixels live, {snr.size - live} are dead (white)")
    right.imshow(mean, cmap="gray_r")
    right.set_title("mean image of MNIST")
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.grid(False)
    figures.save(figure, FLAGS.figures_dir, "pixels")


if __name__ == "__main__":
    command_line.run(main)
