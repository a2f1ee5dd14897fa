"""Error, units and MACs of a trained StructuredBP network over SNR thresholds, and by the evidence. It trains nothing.

    python scripts/lenet5-sbp.py --schedule=paper
    python scripts/threshold.py --run=checkpoints/lenet5-sbp-paper

Each row is a really smaller network. Units that --shrink_every removed are gone: a run to examine below its own
threshold needs --shrink_every=0. To choose a threshold, use a run made with --validate: others read the test set.
Results: docs/trials.md#threshold
"""

import itertools
import sys
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment, pruning, training
from keras_sbp.utils.experiment import testing
from keras_sbp.utils.experiment.flags import define_data_dir, define_figures_dir
from keras_sbp.utils.experiment.settings import stored_record
from keras_sbp.utils.io import checkpoint, command_line, data, figures, options, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "run", str(experiment.ROOT / "checkpoints" / "lenet5-sbp"), "The folder of a StructuredBP run that is done."
)
flags.DEFINE_list(
    "thresholds", "0.1,0.3,0.5,0.7,0.85,1,1.2,1.5,2,2.5,3,3.5,4,5,6,8,10", "Thresholds of the signal-to-noise ratio."
)
define_data_dir()
define_figures_dir()


def main():
    result, arrays = report.read(FLAGS.run), checkpoint.latest(FLAGS.run)
    if not result or not arrays:
        command = "python scripts/lenet5-sbp.py --schedule=paper"
        raise UserError(
            f"no {'result' if not result else 'training checkpoint (git holds smaller networks only)'} in {FLAGS.run}: "
            f"make a run with {command}, then give --run=checkpoints/lenet5-sbp-paper"
        )
    model, settings = training.load_network(arrays), options.in_todays_names(stored_record(arrays, FLAGS.run))
    noise = [layer for layer in model.layers if isinstance(layer, SBP)]
    if not noise or result["network"] not in NETWORKS or result["dataset"].endswith("-random"):
        raise UserError(
            f"{FLAGS.run} is {result['network']} {result['method']} on {data.DATASETS[result['dataset']].title}: give "
            f"a StructuredBP run of {', '.join(NETWORKS)}, not on random labels"
        )
    network = NETWORKS[result["network"]]
    split = "val" if settings["validate"] else "test"
    test = data.load(result["dataset"], FLAGS.data_dir, split, result["seed"])

    title = f"{result['network']} {result['method']} on {data.DATASETS[result['dataset']].title}"
    whole, rows = counting.multiply_adds(network.build()), []
    # The evidence keeps units that the ratio removes: it says nothing of a run that took those out.
    evidence = [] if settings["shrink_every"] else [None]
    for threshold in tqdm([*thresholds(settings), *evidence], desc="thresholds"):
        for layer in noise:
            layer.criterion, layer.threshold = ("snr", threshold) if threshold else ("evidence", layer.threshold)
        smaller = pruning.shrink(model)
        error, macs = (
            testing.error(smaller, test, data.DATASETS[result["dataset"]].preprocess),
            counting.multiply_adds(smaller),
        )
        rows.append((threshold, error, network.units(counting.kernels(smaller)), whole / macs if macs else None))
    print(f"{title}\n{'Threshold':>9}{'Error %':>10}   {'Units per layer':<24}{'FLOPs':>9}")
    for threshold, error, left, speedup in rows:
        times = f"{speedup:.2f}x" if speedup else "-"
        rule = f"{threshold:g}" if threshold else "evidence"
        print(f"{rule:>9}{error:>10.2f}   {' - '.join(map(str, left)):<24}{times:>9}")
    draw(title, rows, settings["threshold"])


def thresholds(settings):
    """--thresholds in order, less those for which the run's units are gone."""
    try:
        wanted = sorted({float(threshold) for threshold in FLAGS.thresholds})
    except ValueError:
        wanted = []
    if settings["shrink_every"] and settings.get("criterion", "snr") != "snr":
        raise UserError(f"{FLAGS.run} took units out by the evidence: give a run with --shrink_every=0")
    if not wanted or wanted[0] <= 0:
        raise UserError(f"--thresholds={','.join(FLAGS.thresholds)} is not a list of numbers > 0")
    own = settings["threshold"] if settings["shrink_every"] else 0.0
    if wanted[0] < own:
        print(
            f"thresholds under {own:g} are left out: {FLAGS.run} was trained with --shrink_every="
            f"{settings['shrink_every']}, which took those units out; it takes a run with --shrink_every=0",
            file=sys.stderr,
        )
    kept = [threshold for threshold in wanted if threshold >= own]
    if not kept:
        raise UserError(f"--thresholds={','.join(FLAGS.thresholds)} has none from {own:g} on: give some that are")
    return kept


def draw(title, rows, own):
    figure, (errors, units, speedups) = figures.plt.subplots(1, 3, figsize=(7, 2.5), sharex=True)
    by_ratio, by_evidence = [row for row in rows if row[0]], [row for row in rows if not row[0]]
    x, error, left, speedup = zip(*by_ratio)
    errors.plot(x, error, color=figures.BLACK, marker="o")
    errors.set_ylabel("error, %")
    styles = zip(itertools.cycle(figures.COLORS), itertools.cycle(figures.MARKERS))
    for number, (counts, (color, marker)) in enumerate(zip(zip(*left), styles), 1):
        # A curve ends where no unit is left.
        units.plot(x, [count or np.nan for count in counts], color=color, marker=marker, label=f"layer {number}")
    units.set_ylabel("units alive")
    units.legend(fontsize=7)
    speedups.plot(x, [times or np.nan for times in speedup], color=figures.BLACK, marker="o")
    speedups.set_ylabel("MACs saved, ×")
    for _, error, _, speedup in by_evidence:
        for axes, value in ((errors, error), (speedups, speedup)):
            if value:
                axes.axhline(value, color="grey", linestyle="--", linewidth=1, label="by the evidence")
                axes.legend(fontsize=7)
    for axes in (errors, units, speedups):
        axes.axvline(own, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel("threshold of the SNR")
        figures.use_log_scale(axes, "x")
        figures.use_log_scale(axes, "y")
    figure.suptitle(title, fontsize=9)
    # docs/results.md shows that of the paper's settings.
    name = Path(FLAGS.run).name
    figures.save(figure, FLAGS.figures_dir, "threshold" if name == "lenet5-sbp-paper" else f"threshold-{name}")


if __name__ == "__main__":
    command_line.run(main)
