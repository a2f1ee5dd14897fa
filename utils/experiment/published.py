"""--evaluate: measures a published network, one that git holds, on this machine."""

import os
import sys

from absl import flags

from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.experiment.flags import published_folder
from keras_sbp.utils.io import networks, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS
# How far an error may be from the published one, in %: another machine adds in another order.
ROUNDING = 0.011


def evaluate(run):
    """Print a published network's row beside what is measured of it here, and say on stderr where they differ.

    Args:
        run: the `Experiment`.
    Raises:
        UserError: git holds no network of such a run.
    """
    folder = published_folder(run.script)
    result, path = report.read(folder), os.path.join(folder, "network.keras")
    if not result or not os.path.exists(path):
        raise UserError(f"no network is published at {folder}: leave --evaluate out to train one")
    network, original = networks.load(path), run.original()
    multiply_adds = counting.multiply_adds(network)
    here = {
        "error": run.error(network),
        "units": run.units(counting.kernels(network)),
        "multiply_adds": multiply_adds,
        "flops_speedup": counting.multiply_adds(original) / multiply_adds if multiply_adds else None,
        **timing.speedups(original, network),
    }
    found = {result["method"]: {"published": [result], "here": [{**result, **here}]}}
    # What fine-tuning changed is not measured again.
    found[result["method"]]["here"][0].pop("error_before_finetuning", None)
    print(report.text(run.network, FLAGS.dataset, report.rows(run.network, FLAGS.dataset, found)))
    int8 = runtimes.predictor(runtimes.to_litert(network, run.examples()))
    print(f"in LiteRT, with weights and values of eight bits: {run.error(int8):.2f} % error", file=sys.stderr)
    differs = [name for name in ("units", "multiply_adds") if here[name] != result[name]]
    differs += ["error"] if abs(here["error"] - result["error"]) > ROUNDING else []
    for name in differs:
        print(f"another {name}: {folder} has {result[name]}, and here it is {here[name]}", file=sys.stderr)
