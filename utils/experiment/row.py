"""A run's row: what result.json says of its network, and the table that shows it beside the published and the paper's."""

import platform
import shlex
import sys
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.deployment import timing
from keras_sbp.utils.io import report
from keras_sbp.utils.pruning import counting

if TYPE_CHECKING:
    from keras_sbp.utils.experiment.run import Experiment


def measure(run: "Experiment", network: keras.Model) -> report.Result:
    """Units, MACs and speed-ups of a smaller network."""
    original, macs = run.original(), counting.multiply_adds(network)
    return {
        "units": run.network.units(counting.kernels(network)),
        "multiply_adds": macs,
        "flops_speedup": counting.multiply_adds(original) / macs if macs else None,
        **timing.speedups(original, network),
    }


def describe(run: "Experiment", network: keras.Model, error: float, metrics: dict[str, float]) -> report.Result:
    """The content of result.json.

    Args:
        network: the smaller one.
        error: on the test set in %.
        metrics: further ones of the method.
    """
    return {
        "network": run.title,
        "method": run.name,
        "dataset": run.settings.dataset,
        "seed": run.settings.seed,
        "epochs": run.settings.epochs,
        "error": error,
        **measure(run, network),
        **metrics,
        "seconds": round(sum(run.seconds.values()), 1),
        "command": shlex.join(["python", *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "settings": run.record,
    }


def table(run: "Experiment") -> str:
    """The Original's row and this run's, each below the published one and the paper's."""
    script, found = run.script, {}
    directories = {script.name: run.directory}
    if original := script.original:
        directories = {original: original_directory(run, original), **directories}
    label = "ours, held out" if run.settings.validate else "ours"
    for name, own in directories.items():
        for source, directory in (("published", script.published_directory(name)), (label, own)):
            if result := report.read(directory):
                found.setdefault(result["method"], {})[source] = [result]
    return report.text(run.title, run.settings.dataset, report.rows(run.title, run.settings.dataset, found))


def original_directory(run: "Experiment", name: str) -> str:
    """The directory of the run of another script that a run trains for itself: beside it, if it was told its own."""
    return f"{run.directory}-{name}" if run.settings.checkpoints_dir else run.script.directory(name)
