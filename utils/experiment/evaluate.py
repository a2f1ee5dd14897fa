"""--evaluate: measures a network that git holds, or another run's, on this machine."""

import os
import sys

from keras_sbp.utils.deployment import runtimes
from keras_sbp.utils.experiment import finished
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.io import report
from keras_sbp.utils.io.command_line import UserError

# How far these may be from the published ones: another machine sums in another order.
ROUNDING = {"error": 0.011, "nll": 0.001, "ece": 0.02}


def evaluate(run: Experiment) -> str:
    """A network's published row, or that of the run in --checkpoint, beside what is measured of it here.

    Says on stderr where they differ.

    Raises:
        UserError: git holds no network of such a run, or --checkpoint is a run of another network or data set, or was
            trained on the images that --validate holds out, or measured on them and --validate is not given, or has
            random labels.
    """
    directory = run.settings.checkpoint or run.script.published_directory()
    result = report.read(directory)
    if not result or not os.path.exists(finished.network_file(directory)):
        if run.settings.checkpoint:
            raise UserError(f"no finished run at {directory}: give a folder with result.json and network.keras")
        raise UserError(f"no network is published at {directory}: leave out --evaluate to train one")
    found, wanted = (result["network"], result["dataset"]), (run.title, run.settings.dataset)
    if found != wanted:
        raise UserError(
            f"{directory} is {' on '.join(found)}, not {' on '.join(wanted)}: use the script of that network"
        )
    if result["dataset"].endswith("-random"):
        raise UserError(f"{directory} is a run of random-labels.py, which preprocesses images in its own way")
    validate = result["settings"].get("validate", False)
    if validate and not run.settings.validate:
        raise UserError(f"{directory} was measured on the images that --validate holds out: give --validate")
    network = finished.load(directory, run.settings)
    here = run.scores(network) | run.measure(network)
    rows = {"recorded" if run.settings.checkpoint else "published": [result], "here": [{**result, **here}]}
    # What fine-tuning changed is not measured again.
    rows["here"][0].pop("error_before_finetuning", None)
    int8 = runtimes.predictor(runtimes.to_litert(network, run.examples()))
    print(f"negative log likelihood {here['nll']:.4f} nats, calibration error {here['ece']:.2f} %", file=sys.stderr)
    error = run.scores(int8)["error"]
    print(f"in LiteRT, with weights and activations of eight bits: {error:.2f} % error", file=sys.stderr)
    differs = [name for name in ("units", "multiply_adds") if here[name] != result[name]]
    differs += [name for name, bound in ROUNDING.items() if abs(here[name] - result.get(name, here[name])) > bound]
    for name in differs:
        print(f"{name} differs: {directory} has {result[name]}, measured {here[name]}", file=sys.stderr)
    return report.text(
        run.title, run.settings.dataset, report.rows(run.title, run.settings.dataset, {result["method"]: rows})
    )
