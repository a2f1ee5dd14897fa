"""Results: what a run leaves in its folder, and the table that shows it beside the paper's rows."""

import json
import os
import statistics

from keras_sbp.utils.io import checkpoint, networks, paper
from keras_sbp.utils.io.command_line import UserError

DATASET_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "mnist-random": "MNIST, random labels",
    "cifar10-random": "CIFAR-10, random labels",
    "digits": "digits",
    "digits-random": "digits, random labels",
}
LARGEST_FILE = 1_000_000  # bytes; a result.json has about 1,000
COLUMNS = ("Error %", "Units per layer", "CPU, LiteRT", "GPU", "FLOPs")
# Of the README's tables: what its figures were measured on.
COLUMNS_OF_GIT = ("Error %", "Units per layer", "CPU, LiteRT", "GPU, H200", "FLOPs")


def read(folder):
    """The result.json of a run's folder as a dict, or None if the run is not done.

    Raises:
        UserError: the file cannot be read, or is not a result.
    """
    path = os.path.join(folder, "result.json")
    if not os.path.lexists(path):
        return None
    try:
        if not os.path.isfile(path):
            raise ValueError("it is no file")
        with open(path, encoding="utf-8") as file:
            result = json.loads(file.read(LARGEST_FILE))
        _check(result)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}): remove it, and its run's command makes it again") from None
    return result


def _check(result):
    """Raise ValueError if what a row shows, and a run is known by, is not in a result."""

    def is_number(value):
        return type(value) in (int, float) and 0 <= value < 1e30

    if not isinstance(result, dict):
        raise ValueError("it is not the result of a run")
    units = result.get("units")
    wrong = {name: not isinstance(result.get(name), str) for name in ("network", "method", "dataset")}
    wrong |= {name: not is_number(result.get(name)) for name in ("error", "multiply_adds", "seed")}
    wrong |= {
        "settings": not isinstance(result.get("settings"), dict),
        "units": not (isinstance(units, list) and all(map(is_number, units))),
    }
    for name in ("cpu_speedup", "gpu_speedup", "flops_speedup"):
        wrong[name] = name not in result or not (result[name] is None or is_number(result[name]))
    if any(wrong.values()):
        raise ValueError(f"its {', '.join(name for name in wrong if wrong[name])} cannot be right")


def write(folder, result, model=None, half=False):
    """Put network.keras, if a model is given, and result.json in a folder, each whole or not at all.

    `half`: the network's weights as float16.

    Raises:
        UserError: they cannot be written.
    """
    try:
        if model:
            content = networks.content(model, half)
            checkpoint.write(os.path.join(folder, "network.keras"), lambda file: file.write(content))
        text = json.dumps(result, indent=2) + "\n"
        checkpoint.write(os.path.join(folder, "result.json"), lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(
            f"cannot write the result in {folder} ({error.strerror or error}); the same command tries again"
        ) from None


def rows(network, dataset, results):
    """The cells of a table: for each method the paper's row, if the table is of the paper's data set, and ours.

    Args:
        network: "Lenet-fc", "LeNet5", "VGG-like", "ResNet-20".
        dataset: where our results come from.
        results: {method: {whose they are: the results of some seeds}}; a method without any has the paper's row only.
            Those of the paper's settings, and of moved images, have rows of their own.
    Returns:
        A list of (method, "paper" or whose, error, units, CPU, GPU, FLOPs), all str.
    """
    paper_dataset, paper_rows = paper.TABLES.get(network, (None, {}))
    table = []
    for method, found in results.items():
        theirs = paper_rows.get(method) if dataset == paper_dataset else None
        if theirs:
            table.append((method, "paper", *_paper_cells(theirs)))
        for whose, runs in found.items():
            kinds = {}
            for run in runs:
                kinds.setdefault(_kind(run["settings"]), []).append(run)
            table += [(method, whose + kind, *_our_cells(kinds[kind], theirs)) for kind in sorted(kinds)]
    return table


def _kind(settings):
    """What sets runs with such settings apart from the others of their method."""
    if shift := settings.get("shift"):
        return f", images moved by up to {shift}"
    return ", paper's settings" if settings.get("schedule") == "paper" else ""


def other_rows(network, whole):
    """The cells of other papers' rows; `whole`: the Original's multiply-adds."""
    return [
        (
            method,
            "other paper",
            f"{row.error:.2f}",
            _units(row.units) or "-",
            "-",
            "-",
            _times(whole / row.multiply_adds),
        )
        for method, row in paper.OTHERS.get(network, {}).items()
    ]


def text(network, dataset, table):
    """A table of `rows` as lines of a terminal."""
    lines, shown = [(f"{network} on {DATASET_NAMES[dataset]}", "", *COLUMNS)], None
    for method, *cells in table:
        lines.append((method if method != shown else "", *cells))
        shown = method
    # Names and units to the left, figures to the right.
    return aligned(lines, "<<><>>>")


def aligned(lines, sides):
    """Lines of cells, all str, as text in columns, each to the left ("<") or to the right (">")."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    formats = [f"{side}{width}" for side, width in zip(sides, widths)]
    return "\n".join("  ".join(map(format, cells, formats)).rstrip() for cells in lines)


def markdown(network, dataset, table):
    """A table of `rows` in Markdown."""
    lines = [
        f"| {network} on {DATASET_NAMES[dataset]} | | {' | '.join(COLUMNS_OF_GIT)} |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in table])


def _paper_cells(row):
    return f"{row.error:.2f}", _units(row.units), _times(row.cpu), _times(row.gpu), _times(row.flops)


def _our_cells(runs, theirs):
    """One seed's figures, or the mean over the seeds; the units are of the run whose multiply-adds are the median.

    An error whose interval holds the paper's is called the same.
    """
    error, spread = interval([run["error"] for run in runs])
    cell = _with_interval(error, spread)
    if all("error_before_finetuning" in run for run in runs):
        cell = f"{_with_interval(*interval([run['error_before_finetuning'] for run in runs]))} -> {cell}"
    if theirs and spread and abs(error - theirs.error) <= spread:
        cell += " (same)"
    return cell, _units(median(runs)["units"]), *(_speedup(runs, name) for name in ("cpu", "gpu", "flops"))


def median(runs):
    """The run whose multiply-adds are the median of all runs', the smaller one of two."""
    return sorted(runs, key=lambda run: run["multiply_adds"])[(len(runs) - 1) // 2]


def interval(values):
    """The mean of some runs' values, and half of its 95 % interval by Student's t; None for a single run."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    # Imported here, as it takes half a second.
    from scipy import stats

    return mean, stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def _with_interval(mean, spread, unit=""):
    return f"{mean:.2f}{unit}" + (f" ± {spread:.2f}" if spread and spread >= 0.005 else "")


def _speedup(runs, name):
    """The mean over the runs that have it: on a GPU, those whose networks are in git."""
    values = [run[f"{name}_speedup"] for run in runs if run[f"{name}_speedup"] is not None]
    return _with_interval(*interval(values), "x") if values else "-"


def _units(units):
    return " - ".join(str(unit) for unit in units)


def _times(factor):
    return "-" if factor is None else f"{factor:.2f}x"
