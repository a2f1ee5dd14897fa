"""Likelihood and calibration of all published networks; of runs with noise, also of means of samples.

    python scripts/calibration.py                     # some minutes; puts them into each result.json
    python scripts/lenet-fc-sbp.py
    python scripts/calibration.py --runs=checkpoints/lenet-fc-sbp    # means of 1, 4 and 16 samples of theta

Negative log likelihoods are in nats per test image. The expected calibration error has 15 bins. It trains nothing.
Results: docs/results.md#likelihood-and-calibration
"""

import re
import statistics
from pathlib import Path

import keras
from absl import flags

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import experiment, training
from keras_sbp.utils.experiment import calibration, testing
from keras_sbp.utils.experiment.flags import define_data_dir, define_figures_dir
from keras_sbp.utils.experiment.precision import in_float32
from keras_sbp.utils.io import checkpoint, command_line, data, figures, networks, report
from keras_sbp.utils.io.command_line import UserError

FLAGS = flags.FLAGS
SAMPLES = (1, 4, 16)
DOCUMENTED = ["lenet-fc-sbp", "lenet5-sbp"]  # whose picture docs/results.md shows

flags.DEFINE_list("runs", [], "Folders of runs with noise, instead of the published networks.")
define_data_dir()
define_figures_dir()


def main():
    print("| network | theta | seeds | Error % | NLL | ECE % |\n|---|---|--:|--:|--:|--:|")
    if FLAGS.runs:
        names = [Path(folder).name for folder in FLAGS.runs]
        name = "calibration" if names == DOCUMENTED else f"calibration-{'-'.join(names)}"
        draw([noisy(Path(folder)) for folder in FLAGS.runs], name)
        return
    found = {}
    for path in sorted((experiment.ROOT / "checkpoints" / "published").glob("*/network.keras")):
        result = report.read(path.parent)
        scores = testing.scores(logits(result, networks.load(path)), test_set(result).labels)
        report.write(path.parent, result | {name: scores[name] for name in ("nll", "ece")})
        found.setdefault(re.sub(r"-seed\d+$", "", path.parent.name), []).append(scores)
    for name, seeds in found.items():
        show(name, "E theta", seeds)


def noisy(folder):
    """The rows of a run: with E theta and with means of samples. Returns its result and what `draw` draws of it."""
    result, arrays = report.read(folder), checkpoint.latest(folder)
    model = training.load_network(arrays) if arrays else None
    if not result or not model or not any(isinstance(layer, SBP) for layer in model.layers):
        raise UserError(f"{folder} has no finished run with noise and its checkpoint: give that of a StructuredBP run")
    if result["dataset"].endswith("-random"):
        raise UserError(f"{folder} is a run of random-labels.py, which preprocesses images in its own way")
    keras.utils.set_random_seed(result["seed"])
    labels = test_set(result).labels
    with in_float32(model):
        mean, sampled = logits(result, model), logits(result, calibration.sampled(model, max(SAMPLES)))
    show(folder.name, "E theta", [testing.scores(mean, labels)])
    for count in SAMPLES:
        show(folder.name, f"{count} sample{'s' * (count > 1)}", [testing.scores(sampled[:, :count], labels)])
    return result, [calibration.reliability(calibration.from_logits(each), labels) for each in (mean, sampled)]


def test_set(result):
    split = "val" if result["settings"].get("validate") else "test"
    return data.load(result["dataset"], FLAGS.data_dir, split, result["seed"])


def logits(result, predictor):
    return testing.logits(predictor, test_set(result).images, data.DATASETS[result["dataset"]].preprocess)


def show(name, theta, seeds):
    """Print a row of the means over some seeds' scores."""
    means = [statistics.fmean(scores[key] for scores in seeds) for key in ("error", "nll", "ece")]
    print(f"| {name} | {theta} | {len(seeds)} | {means[0]:.2f} | {means[1]:.4f} | {means[2]:.2f} |", flush=True)


def draw(found, name):
    """Accuracy over confidence, a picture per run."""
    figure, axes = figures.plt.subplots(1, len(found), figsize=(2.8 * len(found), 2.6), squeeze=False)
    for axis, (result, curves) in zip(axes[0], found):
        styles = zip(("E theta", f"{max(SAMPLES)} samples"), figures.COLORS, figures.MARKERS)
        for (confidence, accuracy, count), (label, color, marker) in zip(curves, styles):
            there = count > 0
            axis.plot(confidence[there], accuracy[there], color=color, marker=marker, label=label)
        axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
        axis.set(title=f"{result['network']} {result['method']}", xlabel="confidence", ylabel="accuracy")
        axis.legend(fontsize=7)
    figures.save(figure, FLAGS.figures_dir, name)


if __name__ == "__main__":
    command_line.run(main)
