"""Prints the tables of docs/results.md from checkpoints/published/: the paper's rows and ours, with means over seeds.

    python scripts/tables.py --format=markdown        # the tables as they are in docs/results.md
    python scripts/tables.py --measure                # times every published network again, on this machine
    KERAS_BACKEND=jax python scripts/tables.py --measure --device=gpu   # the GPU column alone, compiled by XLA

--measure puts its figures into each result.json. How to read the tables: docs/results.md
"""

import itertools
import sys

import keras
from absl import flags

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.deployment import timing
from keras_sbp.utils.io import command_line, networks, paper, report

FLAGS = flags.FLAGS
flags.DEFINE_enum("format", "text", ["text", "markdown"], "markdown is what docs/results.md shows.")
flags.DEFINE_bool("measure", False, "Time all networks in this run, and put the figures in their result.json.")
flags.DEFINE_enum(
    "device", "all", ["all", "gpu"], "Where --measure times them: gpu needs Keras on JAX, all TensorFlow."
)


def main():
    speedups = _speedups() if FLAGS.measure else None
    for network, record in NETWORKS.items():
        dataset, paper_rows = paper.TABLES.get(network, (None, {}))
        results = {method: {} for method in paper_rows}
        for script in _scripts(record.script):
            folders = _folders(script)
            if not folders:
                print(f"{network}: python scripts/{script}.py makes a row that is not there", file=sys.stderr)
            for folder in folders:
                result = report.read(folder)
                # An Original is as fast as itself.
                if FLAGS.measure and script != record.script and (path := folder / "network.keras").exists():
                    result |= _measured(result, speedups(record.build(), networks.load(path)))
                    report.write(folder, result)
                elif FLAGS.measure and not (folder / "network.keras").exists():
                    print(f"{folder}/network.keras: not here, so its row keeps its figures", file=sys.stderr)
                results.setdefault(result["method"], {}).setdefault("ours", []).append(result)
                dataset = dataset or result["dataset"]
        if not dataset:
            continue
        show = report.markdown if FLAGS.format == "markdown" else report.text
        rows = report.rows(network, dataset, results)
        # Where the paper has no row, those of others stand beside ours.
        rows += [] if paper_rows else report.other_rows(network)
        print(show(network, dataset, rows), end="\n\n")
    print(paper.NOTE)


def _speedups():
    """What measures two networks on --device."""
    wanted = "jax" if FLAGS.device == "gpu" else "tensorflow"
    if keras.backend.backend() != wanted:
        raise command_line.UserError(
            f"--measure --device={FLAGS.device} needs Keras on {wanted}: set KERAS_BACKEND={wanted}"
        )
    return timing.xla_speedups if wanted == "jax" else timing.speedups


def _measured(before, found):
    """What was found, and what was found before on devices that were not measured now."""
    columns = {name: found.get(name) for name in ("cpu_speedup", "gpu_speedup")}
    if not any(columns.values()):
        figures = ", ".join(f"{entry['speedup']:.2f}x" for entry in found["timing"])
        print(f"{figures} on the CPU by XLA, which no column shows: nothing is changed", file=sys.stderr)
        return before
    measured = {entry["device"] == "CPU" for entry in found["timing"]}
    kept = [entry for entry in before["timing"] if (entry["device"] == "CPU") not in measured]
    return {name: speed or before[name] for name, speed in columns.items()} | {"timing": found["timing"] + kept}


def _scripts(prefix):
    """The scripts of a network: the Original's and one a method, whatever methods there are."""
    names = sorted(path.stem for path in (experiment.ROOT / "scripts").glob("*.py"))
    return [name for name in names if (f"{name}-").startswith(f"{prefix}-")]


def _folders(script):
    """The folders of a script's published runs, of each kind, of the seeds 0, 1, 2, ..., as far as they are."""
    found, runs = [], experiment.ROOT / "checkpoints" / "published"
    for kind in report.KINDS:
        names = (f"{script}{kind}{f'-seed{seed}' if seed else ''}" for seed in itertools.count())
        found += itertools.takewhile(report.read, (runs / name for name in names))
    return found


if __name__ == "__main__":
    command_line.run(main)
