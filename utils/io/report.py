"""Results: what a run leaves in its directory, and the table that shows it beside the paper's rows."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_sbp.utils.io import checkpoint, networks, options, paper
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.data import DATASETS

# result.json, and a row of a table.
Result = dict[str, Any]
Row = tuple[str, ...]

# What the name of a published run's folder has between its script and its seed: by_kind tells them apart by settings.
KINDS = ("", "-short", "-paper", "-shift1", "-shift2", "-small", "-large", "-short-distilled")
MAX_FILE_SIZE = 1_000_000  # bytes; a result.json has about 1,000
COLUMNS = ("Error %", "Units per layer", "CPU, LiteRT", "GPU", "FLOPs")
# In docs/results.md, where the device is known.
MARKDOWN_COLUMNS = ("Error %", "Units per layer", "CPU, LiteRT", "GPU, H200", "FLOPs")


def read(folder: str | os.PathLike) -> Result | None:
    """The result.json of a run's folder, or None if the run is not done.

    Raises:
        UserError: the file cannot be read, or is not a result.
    """
    path = os.path.join(folder, "result.json")
    if not os.path.lexists(path):
        return None
    try:
        if not os.path.isfile(path):
            raise ValueError("it is not a file")
        with open(path, encoding="utf-8") as file:
            result = json.loads(file.read(MAX_FILE_SIZE))
        _check(result)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({error}): delete it, and the same command writes it again") from None
    return result


def _check(result):
    """Raise ValueError unless a result has what a row shows and what identifies a run."""

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
        raise ValueError(f"it has invalid {', '.join(name for name in wrong if wrong[name])}")


def write(folder: str | os.PathLike, result: Result, model: keras.Model | None = None, half: bool = False) -> None:
    """Write network.keras, if a model is given, and result.json to a folder, each atomically.

    Args:
        half: store the network's weights as float16.

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
            f"cannot write the result in {folder} ({error.strerror or error}): free disk space and repeat the command"
        ) from None


def rows(network: str, dataset: str, results: Mapping[str, Mapping[str, Sequence[Result]]]) -> list[Row]:
    """The rows of a table: for each method the paper's, if the table is of the paper's data set, and ours.

    Args:
        network: its name, as `Experiment.title`.
        dataset: of our results.
        results: {method: {source: the results of some seeds}}; a method without any has the paper's row only. Runs with
            other settings, such as the paper's or shifted images, have rows of their own (`by_kind`).
    Returns:
        Rows of (method, source, error, units, CPU, GPU, FLOPs); the source is "paper" or as in `results`.
    """
    paper_dataset, paper_rows = paper.TABLES.get(network, (None, {}))
    table = []
    for method, found in results.items():
        theirs = paper_rows.get(method) if dataset == paper_dataset else None
        if theirs:
            table.append((method, "paper", *_paper_cells(theirs)))
        for source, runs in found.items():
            table += [(method, source + kind, *_our_cells(alike, theirs)) for kind, alike in by_kind(runs).items()]
    return table


def by_kind(runs: Sequence[Result]) -> dict[str, list[Result]]:
    """The runs of a method, by what sets them apart: "", ", paper's settings", ", price 8.5", ", distilled" ..."""
    found = {}
    for run in runs:
        settings = options.in_todays_names(run["settings"])
        scale = min(settings.get("initial_kl_scale") or [1.0])
        key = _kind(settings), settings.get("final_price", 0.0), settings.get("price", 0.0), scale
        found.setdefault(key, []).append(run)
    named = {}
    for key in sorted(found):
        name = key[0]
        for field, words in ((1, "price"), (2, "initial price"), (3, "initial KL scale")):
            if len({other[field] for other in found if other[:field] == key[:field]}) > 1:
                name += f", {words} {key[field]:g}"
        named[name] = found[key]
    return named


def _kind(settings):
    kind = ", paper's settings" if settings.get("schedule") == "paper" else ""
    kind += f", images shifted by up to {settings['shift']}" if settings.get("shift") else ""
    return kind + (", distilled" if settings.get("finetune_teacher") else "")


def other_rows(network: str) -> list[Row]:
    """The rows of other papers."""
    return [
        (
            method,
            "other paper",
            f"{row.error:.2f}",
            _units(row.units) or "-",
            "-",
            "-",
            _times(row.flops),
        )
        for method, row in paper.OTHERS.get(network, {}).items()
    ]


def text(network: str, dataset: str, table: Sequence[Row]) -> str:
    """A table of `rows` for the terminal."""
    lines, shown = [(f"{network} on {DATASETS[dataset].title}", "", *COLUMNS)], None
    for method, *cells in table:
        lines.append((method if method != shown else "", *cells))
        shown = method
    return align(lines, "<<><>>>")


def align(lines: Sequence[Row], sides: str) -> str:
    """Rows of cells as text in columns, each aligned to the left ("<") or to the right (">")."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    formats = [f"{side}{width}" for side, width in zip(sides, widths)]
    return "\n".join("  ".join(map(format, cells, formats)).rstrip() for cells in lines)


def markdown(network: str, dataset: str, table: Sequence[Row]) -> str:
    """A table of `rows` in Markdown."""
    lines = [
        f"| {network} on {DATASETS[dataset].title} | | {' | '.join(MARKDOWN_COLUMNS)} |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in table])


def _paper_cells(row):
    return f"{row.error:.2f}", _units(row.units), _times(row.cpu), _times(row.gpu), _times(row.flops)


def _our_cells(runs, theirs):
    """One seed's metrics, or their mean over the seeds; the units are those of the run with the median multiply-adds.

    An error whose interval contains the paper's is marked "(n.s.)".
    """
    error, spread = interval([run["error"] for run in runs])
    speedups = [_speedup(runs, name) for name in ("cpu", "gpu", "flops")]
    cell = _with_interval(error, spread)
    if all("error_before_finetuning" in run for run in runs):
        cell = f"{_with_interval(*interval([run['error_before_finetuning'] for run in runs]))} -> {cell}"
    if theirs and spread and abs(error - theirs.error) <= spread:
        cell += " (n.s.)"
    return cell, _units(median(runs)["units"]), *speedups


def median(runs: Sequence[Result]) -> Result:
    """The run with the median multiply-adds, the smaller one of two."""
    return sorted(runs, key=lambda run: run["multiply_adds"])[(len(runs) - 1) // 2]


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of some runs' values, and the half-width of its 95 % interval by Student's t; None for a single run."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    # Imported here, as it takes half a second.
    from scipy import stats

    return mean, stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def _with_interval(mean, spread, unit=""):
    return f"{mean:.2f}{unit}" + (f" ± {spread:.2f}" if spread and spread >= 0.005 else "")


def _speedup(runs, name):
    """The mean over the runs that have it: those whose networks are in git. A dash where one removed every unit."""
    if name == "flops" and any(run["flops_speedup"] is None for run in runs):
        return "-"
    values = [run[f"{name}_speedup"] for run in runs if run[f"{name}_speedup"] is not None]
    return _with_interval(*interval(values), "x") if values else "-"


def _units(units):
    return " - ".join(str(unit) for unit in units)


def _times(factor):
    return "-" if factor is None else f"{factor:.2f}x"
