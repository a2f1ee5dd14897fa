"""The paper's tables with our rows in them, from the results in checkpoints/: one seed's, or the mean over seeds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from nets import lenet5, lenet_fc, vgglike
from utils import command_line, cost, experiment, paper, report

FLAGS = flags.FLAGS
flags.DEFINE_enum("format", "text", ["text", "markdown"], "markdown is what the README shows.")
flags.DEFINE_bool(
    "measure", False, "Time all networks anew, in this one run, and put the figures in their result.json."
)

# {network: (how to build the Original, {method: the script that makes its row})}
NETWORKS = {
    "Lenet-fc": (
        lenet_fc.lenet_fc,
        {
            "Original": "lenet-fc",
            "SparseVD": "lenet-fc-sparsevd",
            "SSL": "lenet-fc-ssl",
            "StructuredBP": "lenet-fc-sbp",
            "StructuredBPc": "lenet-fc-sbpc",
        },
    ),
    "LeNet5": (
        lenet5.lenet5,
        {
            "Original": "lenet5",
            "SparseVD": "lenet5-sparsevd",
            "SSL": "lenet5-ssl",
            "StructuredBP": "lenet5-sbp",
            "StructuredBPc": "lenet5-sbpc",
        },
    ),
    "VGG-like": (
        vgglike.vgglike,
        {
            "Original": "vgglike",
            "StructuredBP": "vgglike-sbp",
            "StructuredBPa": "vgglike-sbpa",
            "StructuredBPc": "vgglike-sbpc",
        },
    ),
}


def main():
    for network, (build, scripts) in NETWORKS.items():
        folders = {method: _folders(script) for method, script in scripts.items()}
        if FLAGS.measure:
            for folder in [folder for seeds in folders.values() for folder in seeds]:
                smaller = keras.models.load_model(folder / "network.keras")
                report.write(folder, report.read(folder) | cost.speedups(build(), smaller))
        results = {method: [report.read(folder) for folder in folders[method]] for method in scripts}
        dataset, _ = paper.TABLES[network]
        show = report.markdown if FLAGS.format == "markdown" else report.text
        print(show(network, dataset, report.rows(network, dataset, results)), end="\n\n")
        for method, script in scripts.items():
            if not results[method]:
                print(f"{network} {method}: python scripts/{script}.py makes this row", file=sys.stderr)
    print(paper.NOTE)


def _folders(script):
    """The folders of a script's finished runs of the seeds 0, 1, 2, ..., as far as they are there.

    Of the paper's schedule, or else of the short one.
    """
    found = []
    if not report.read(experiment.ROOT / "checkpoints" / script):
        script = f"{script}-short"
    while report.read(folder := experiment.ROOT / "checkpoints" / (f"{script}-seed{len(found)}" if found else script)):
        found.append(folder)
    return found


if __name__ == "__main__":
    command_line.run(main)
