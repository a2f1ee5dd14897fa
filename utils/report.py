"""Results: what a run leaves in its folder, and the table that shows it beside the paper's rows."""

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
COLUMNS = ("Error %", "Units a layer", "CPU", "GPU", "FLOPs")


def read(folder):
    """The result.json of a run's folder as a dict, or None if the run is not done."""
    path = os.path.join(folder, "result.json")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def write(folder, result, model=None):
    """Put network.keras, if a model is given, and result.json in a folder, each whole or not at all.

    Raises:
        UserError: they cannot be written.
    """
    try:
        if model:
            aside = os.path.join(folder, "aside.keras")
            model.save(aside)
            os.replace(aside, os.path.join(folder, "network.keras"))
        text = json.dumps(result, indent=2) + "\n"
        checkpoint.write(os.path.join(folder, "result.json"), lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(
            f"cannot write the result in {folder} ({error.strerror}); the same command tries again"
        ) from None


def rows(network, dataset, results):
    """The cells of a table: for each method the paper's row, if the table is of the paper's data set, and ours.

    Args:
        network: "Lenet-fc", "LeNet5", "VGG-like".
        dataset: where our results come from.
        results: {method: the results of its seeds}; a method without any has the paper's row only.
    Returns:
        A list of (method, "paper", "ours" or "ours, short" for its schedule, error, units, CPU, GPU, FLOPs), all str.
    """
    paper_dataset, paper_rows = paper.TABLES.get(network, (None, {}))
    table = []
    for method, runs in results.items():
        if dataset == paper_dataset:
            table.append((method, "paper", *_paper_cells(paper_rows.get(method))))
        if runs:
            schedule = runs[0].get("settings", {}).get("schedule", "paper")
            table.append((method, "ours" if schedule == "paper" else f"ours, {schedule}", *_our_cells(runs)))
    return table


def text(network, dataset, table):
    """A table of `rows` as lines of a terminal."""
    title = f"{network} on {DATASET_NAMES[dataset]}"
    width = max([24, *(len(units) for _, _, _, units, *_ in table)])
    lines = [f"{title:<32}{COLUMNS[0]:>13}   {COLUMNS[1]:<{width}}{COLUMNS[2]:>8}{COLUMNS[3]:>8}{COLUMNS[4]:>9}"]
    shown = None
    for method, whose, error, units, cpu, gpu, flops in table:
        name = method if method != shown else ""
        lines.append(f"{name:<18}{whose:<14}{error:>13}   {units:<{width}}{cpu:>8}{gpu:>8}{flops:>9}")
        shown = method
    return "\n".join(lines)


def markdown(network, dataset, table):
    """A table of `rows` in Markdown."""
    lines = [f"| {network} on {DATASET_NAMES[dataset]} | | {' | '.join(COLUMNS)} |", "|---|---|--:|---|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in table])


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
