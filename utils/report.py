"""The row of a table: a run's result beside the paper's."""

import json
import os
import statistics

from utils import checkpoint, paper
from utils.command_line import UserError

DATASET_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "mnist-random": "MNIST, random labels",
    "cifar10-random": "CIFAR-10, random labels",
    "digits": "digits",
}


def read(folder):
    """The result.json of a run's folder as a dict, or None if the run is not done."""
    path = os.path.join(folder, "result.json")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def write(folder, model, result):
    """Put network.keras and then result.json in a folder, each whole or not at all."""
    try:
        aside = os.path.join(folder, "aside.keras")
        model.save(aside)
        os.replace(aside, os.path.join(folder, "network.keras"))
        text = json.dumps(result, indent=2) + "\n"
        checkpoint.write(os.path.join(folder, "result.json"), lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write the result in {folder} ({error.strerror}); the same command tries again") from None


def table(network, dataset, results):
    """The text of a table: for each method that the paper or we have, the paper's row and ours below it.

    Args:
        network: "Lenet-fc", "LeNet5".
        dataset: where our results come from.
        results: {method: the results of its seeds}; the paper's other methods are left out.
    """
    name = f"{network} on {DATASET_NAMES[dataset]}"
    paper_dataset, paper_rows = paper.TABLES[network]
    lines = [("", "", name, "Error %", "Units a layer", "CPU", "GPU", "FLOPs")]
    for method, runs in results.items():
        if dataset == paper_dataset:
            lines.append((method, "paper", *_paper_cells(paper_rows.get(method))))
        lines.append(("" if dataset == paper_dataset else method, "ours", *_our_cells(runs)))
    return "\n".join(_format(line, name) for line in lines)


def _format(line, name):
    if line[2] == name:
        return f"{name:<26}{line[3]:>13}   {line[4]:<24}{line[5]:>8}{line[6]:>8}{line[7]:>9}"
    method, whose, error, units, cpu, gpu, flops = line
    return f"{method:<18}{whose:<8}{error:>13}   {units:<24}{cpu:>8}{gpu:>8}{flops:>9}"


def _paper_cells(row):
    if row is None:
        return ("-",) * 5
    return f"{row.error:.2f}", _units(row.units), _times(row.cpu), _times(row.gpu), _times(row.flops)


def _our_cells(runs):
    """One seed's figures, or the mean over the seeds; the units are those of the first."""

    def mean(key):
        values = [run[key] for run in runs]
        return None if None in values else statistics.fmean(values)

    error = f"{mean('error'):.2f}"
    if len(runs) > 1:
        error += f" ± {statistics.pstdev(run['error'] for run in runs):.2f}"
    speedups = (_times(mean(key)) for key in ("cpu_speedup", "gpu_speedup", "flops_speedup"))
    return error, _units(runs[0]["units"]), *speedups


def _units(units):
    return " - ".join(str(unit) for unit in units)


def _times(factor):
    return "-" if factor is None else f"{factor:.2f}x"
