"""What is in git against itself: networks, results, the README's tables and its example."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import scripts
from utils.plumbing import report

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "checkpoints" / "published").glob("*/network.keras"))
# Where a convolution's outputs are, of the whole network's and of the smaller one's alike.
PLACES = {
    "LeNet5": (24 * 24, 8 * 8),
    "VGG-like": [(32 >> block) ** 2 for block, convolutions in enumerate((2, 2, 3, 3, 3)) for _ in range(convolutions)],
}
WHOLE = {"Lenet-fc": 545_000, "LeNet5": 2_293_000, "VGG-like": 313_463_808}


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_a_network_in_git_is_what_its_result_says(folder):
    result = json.loads((folder / "result.json").read_text())
    model = keras.models.load_model(folder / "network.keras")
    kernels = [np.shape(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    places = [*PLACES.get(result["network"], ()), *[1] * 3][: len(kernels)]
    multiply_adds = sum(place * np.prod(kernel) for place, kernel in zip(places, kernels, strict=True))
    assert result["multiply_adds"] == multiply_adds
    assert result["flops_speedup"] == pytest.approx(WHOLE[result["network"]] / multiply_adds)
    outputs, inputs = [kernel[-1] for kernel in kernels], [kernel[-2] for kernel in kernels]
    expected = {"Lenet-fc": [*inputs, 10], "LeNet5": [*outputs[:2], *inputs[2:]], "VGG-like": outputs[:14]}
    assert result["units"] == expected[result["network"]]


def test_the_tables_of_the_readme_are_those_of_the_results():
    printed = scripts.run("tables", "--format=markdown").stdout
    readme = (ROOT / "README.md").read_text()
    assert all(table in readme for table in printed.split("\n\n")) and printed.count("ours") > 10
    for network, script, method in (
        ("Lenet-fc", "lenet-fc", "Original"),
        ("Lenet-fc", "lenet-fc-sbp", "StructuredBP"),
        ("LeNet5", "lenet5-sbp", "StructuredBP"),
    ):
        folders = [ROOT / "checkpoints" / "published" / (script + seed) for seed in ("", "-seed1", "-seed2")]
        runs = [json.loads((folder / "result.json").read_text()) for folder in folders]
        errors, speedups = ([run[key] for run in runs] for key in ("error", "flops_speedup"))
        (table,) = [table for table in printed.split("\n\n") if table.startswith(f"| {network} on")]
        error = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}"
        row = rf"\| {method} \| ours \| {error} \| .* {np.mean(speedups):.2f}x \|"
        assert re.search(row, table), row


def test_the_cells_of_a_terminals_table_stand_apart_however_long_they_are():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5" / "result.json").read_text())
    errors = {"error": 10.25, "error_before_finetuning": 11.5}
    runs = {method: {"ours": [run | errors] * 3} for method in ("Original", "StructuredBPa, fine-tuned")}
    lines = report.text("LeNet5", "mnist", report.rows("LeNet5", "mnist", runs)).split("\n")
    heading, paper, *ours = [re.split(" {2,}", line.strip()) for line in lines]
    assert heading == ["LeNet5 on MNIST", "Error %", "Units a layer", "CPU", "GPU", "FLOPs"]
    assert paper == ["Original", "paper", "0.80", "20 - 50 - 800 - 500", "1.00x", "1.00x", "1.00x"]
    assert [cells[-6:-3] for cells in ours] == [["ours", "11.50 ± 0.00 -> 10.25 ± 0.00", "20 - 50 - 800 - 500"]] * 2
    assert [cells[:-6] for cells in ours] == [[], ["StructuredBPa, fine-tuned"]] and len({*map(len, lines)}) == 1


def test_the_benchmark_prints_one_line_of_json():
    (line,) = scripts.run("benchmark", "--net=lenet-fc", "--seconds=0.1").stdout.splitlines()
    found = json.loads(line)
    assert {"net", "method", "batch_size", "precision", "steps", "compile_seconds", "peak_rss_mb"} < set(found)
    # 545,000 multiply-adds, forwards and twice backwards, of two operations each.
    assert found["gflops_per_second"] == pytest.approx(found["images_per_second"] * 545_000 * 6 / 1e9, rel=1e-2)
