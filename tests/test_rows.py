"""What is in git against itself: networks, their results, the tables of the docs."""

import json
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_sbp.utils.io import networks, paper, report
from keras_sbp.utils.io.options import in_todays_names
from tests.support import scripts

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "checkpoints" / "published").glob("*/network.keras"))
# Where a convolution's outputs are, of the whole network's and of the smaller one's alike.
VGGLIKE = {
    f"conv{number}": (32 >> block) ** 2
    for block, numbers in enumerate(((1, 2), (3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)))
    for number in numbers
}
BLOCKS = {"ResNet-20": 3, "ResNet-56": 9}  # of a stage
WHOLE = {
    "Lenet-fc": 545_000,
    "LeNet5": 2_293_000,
    "VGG-like": 313_463_808,
    "ResNet-20": 40_813_184,
    "ResNet-56": 125_747_840,
    "LSTM": 2_237_696,
    "ViT": 12_411_520,
}


def num_positions(network, name):
    """The number of positions that a layer computes."""
    if network in BLOCKS:
        stage = {"conv": 1, "logits": 0}.get(name) if name in ("conv", "logits") else int(name[5])
        return (1, 32**2, 16**2, 8**2)[stage]
    return {"LeNet5": {"conv1": 24**2, "conv2": 8**2}, "VGG-like": VGGLIKE}.get(network, {}).get(name, 1)


def macs_of_vit(filters, stream, *blocks):
    """64 tokens; a block has its heads, the dimensions of queries and of values, and the neurons of its MLP."""
    # What reads the normalized stream has one more input, a constant that stands for all units that are gone.
    read = stream + (stream < 64)
    macs = 16**2 * 27 * filters + 64 * 9 * filters * stream + 10 * read
    for heads, query, value, neurons in zip(*[iter(blocks)] * 4):
        macs += 64 * (read * (heads * (2 * query + value) + neurons) + stream * (heads * value + neurons))
        macs += 64 * 64 * heads * (query + value)
    return macs


def units_of_vit(shapes):
    """From the kernels in their order: two convolutions, then query, key, value, output and both of the MLP; logits."""
    conv, patches, *blocks, _ = shapes
    found = [(query[1], query[2], value[2], mlp[1]) for query, _, value, _, mlp, _ in zip(*[iter(blocks)] * 6)]
    return [conv[-1], patches[-1], *sum(found, ())]


SEQUENCES = {"LSTM": lambda units: 28 * (28 + units) * 4 * units + 10 * units, "ViT": macs_of_vit}
UNITS = {"LSTM": lambda shapes: [shapes[0][1] // 4], "ViT": units_of_vit}


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_a_network_in_git_is_what_its_result_says(folder):
    result = json.loads((folder / "result.json").read_text())
    network, model = result["network"], keras.models.load_model(folder / "network.keras")
    assert result["flops_speedup"] == pytest.approx(WHOLE[network] / result["multiply_adds"])
    if network in SEQUENCES:
        assert result["multiply_adds"] == SEQUENCES[network](*result["units"])
        shapes = [weight.shape for weight in model.weights if weight.name == "kernel"]
        assert result["units"] == UNITS[network](shapes)
        return
    kernels = {layer.name: np.shape(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    multiply_adds = sum(num_positions(network, name) * np.prod(kernel) for name, kernel in kernels.items())
    assert result["multiply_adds"] == multiply_adds
    outputs, inputs = ([kernel[side] for kernel in kernels.values()] for side in (-1, -2))
    expected = {"Lenet-fc": [*inputs, 10], "LeNet5": [*outputs[:2], *inputs[2:]], "VGG-like": outputs[:14]}
    if network in BLOCKS:
        of_each = 1 + BLOCKS[network]
        for stage in (1, 2, 3):
            blocks = [f"stage{stage}_block{block}" for block in range(1, of_each)]
            stream, *inner = result["units"][of_each * (stage - 1) : of_each * stage]
            assert inner == [kernels.get(f"{block}_conv1", (0,))[-1] for block in blocks]
            summands = ["conv" if stage == 1 else f"{blocks[0]}_shortcut", *(f"{block}_conv2" for block in blocks)]
            assert {kernels[name][-1] for name in summands if name in kernels} == {stream}
    else:
        assert result["units"] == expected[network]


def test_the_tables_of_the_docs_are_those_of_the_results():
    printed = scripts.run("tables", "--format=markdown").stdout
    page = (ROOT / "docs" / "results.md").read_text()
    assert all(table in page for table in printed.split("\n\n")) and printed.count("ours") > 10
    for network, script, method in (
        ("Lenet-fc", "lenet-fc", "Original"),
        ("Lenet-fc", "lenet-fc-sbp", "StructuredBP"),
        ("LeNet5", "lenet5-sbp", "StructuredBP"),
    ):
        seeds = sorted((ROOT / "checkpoints" / "published").glob(f"{script}-seed*/result.json"))
        first = ROOT / "checkpoints" / "published" / script / "result.json"
        runs = [json.loads(path.read_text()) for path in (first, *seeds)]
        errors, speedups = (np.array([run[key] for run in runs]) for key in ("error", "flops_speedup"))
        (table,) = [table for table in printed.split("\n\n") if table.startswith(f"| {network} on")]
        row = rf"\| {method} \| ours \| {errors.mean():.2f} ± ([\d.]+)[^|]*\| .* {speedups.mean():.2f}x[^|]*\|"
        half = float(re.search(row, table).group(1))
        # Of Student's distribution with 2, 3, ... degrees of freedom, from a table of it.
        times = dict(zip(range(3, 11), (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)))[len(runs)]
        assert half == pytest.approx(times * errors.std(ddof=1) / len(runs) ** 0.5, abs=0.0051)


@pytest.mark.parametrize("errors, said", [((0.8, 0.9, 1.0), True), ((0.8, 0.81, 0.82), False), ((0.86,), False)])
def test_an_error_is_called_the_same_where_its_interval_holds_the_papers(errors, said):
    """The paper's LeNet5 StructuredBP has 0.86 %; halves of the intervals here: 4.303 * 0.1 / sqrt 3, and a tenth."""
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5-sbp" / "result.json").read_text())
    runs = [run | {"error": error, "multiply_adds": 1000 * seed} for seed, error in enumerate(errors)]
    _, ours = report.rows("LeNet5", "mnist", {"StructuredBP": {"ours": runs}})
    assert ours[2].endswith("(n.s.)") == said


def test_a_row_shows_the_units_of_the_run_with_the_median_of_the_multiply_adds():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5-sbp" / "result.json").read_text())
    runs = [run | {"multiply_adds": macs, "units": [macs]} for macs in (5, 1, 4, 2)]
    assert report.rows("LeNet5", "mnist", {"StructuredBP": {"ours": runs}})[1][3] == "2"


def test_runs_with_the_papers_settings_shifted_images_or_a_teacher_have_rows_of_their_own():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5-sbp" / "result.json").read_text())
    other = run | {"error": 1.5, "settings": run["settings"] | {"schedule": "paper"}}
    moved = [run | {"error": error, "settings": run["settings"] | {"shift": 2}} for error in (0.5, 0.5)]
    taught = [row | {"settings": row["settings"] | {"finetune_teacher": "lenet5"}} for row in (run, moved[0])]
    rows = report.rows("LeNet5", "mnist", {"StructuredBP": {"ours": [run, other, *moved, *taught]}})
    assert [row[1:3] for row in rows[1:]] == [
        ("ours", "0.83"),
        ("ours, distilled", "0.83"),
        ("ours, images shifted by up to 2", "0.50"),
        ("ours, images shifted by up to 2, distilled", "0.50"),
        ("ours, paper's settings", "1.50"),
    ]


def test_runs_at_different_prices_have_rows_of_their_own():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5-sbpc-shift2" / "result.json").read_text())
    assert run["settings"]["kl_scale"] == ["price=8.5"], "an older run"
    smaller = run | {"error": 0.95, "settings": in_todays_names(run["settings"]) | {"price": 75.0, "final_price": 37.5}}
    ours, *others = report.rows("LeNet5", "mnist", {"StructuredBPc": {"ours": [run, run]}})
    assert ours[1] == "ours, images shifted by up to 2" and not others
    rows = report.rows("LeNet5", "mnist", {"StructuredBPc": {"ours": [run, smaller]}})
    assert [row[1] for row in rows] == [f"{ours[1]}, price 8.5", f"{ours[1]}, price 37.5"]
    # None takes another's place, whatever sets them apart.
    starts = [smaller | {"settings": smaller["settings"] | changed} for changed in ({"price": 80.0},)]
    starts += [smaller | {"settings": smaller["settings"] | {"initial_kl_scale": [2.0]}}]
    rows = report.rows("LeNet5", "mnist", {"StructuredBPc": {"ours": [run, smaller, *starts]}})
    assert [row[1].removeprefix(ours[1]) for row in rows] == [
        ", price 8.5",
        ", price 37.5, initial price 75, initial KL scale 1",
        ", price 37.5, initial price 75, initial KL scale 2",
        ", price 37.5, initial price 80",
    ]


def test_runs_with_different_initial_kl_scales_have_rows_of_their_own():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5-sbp" / "result.json").read_text())
    settings = in_todays_names(run["settings"])
    runs = [run | {"settings": settings | {"initial_kl_scale": scales}} for scales in ([9.0, 75.0], [45.0, 90.0])]
    rows = report.rows("LeNet5", "digits", {"StructuredBP": {"ours": runs}})
    assert [row[1] for row in rows] == ["ours, initial KL scale 9", "ours, initial KL scale 45"]


@pytest.mark.parametrize("method", paper.OTHERS["Lenet-fc"])
def test_other_papers_lenet_fc_has_the_multiply_adds_of_its_units(method):
    row = paper.OTHERS["Lenet-fc"][method]
    units = (*row.units, 10)
    assert row.flops == pytest.approx(WHOLE["Lenet-fc"] / sum(a * b for a, b in zip(units, units[1:])))


def test_the_cells_of_a_terminals_table_stand_apart_however_long_they_are():
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5" / "result.json").read_text())
    runs = [run | {"error": 10.25 + seed, "error_before_finetuning": 11.5} for seed in (-1, 0, 1)]
    runs = {method: {"ours": runs} for method in ("Original", "a method with a long name")}
    lines = report.text("LeNet5", "mnist", report.rows("LeNet5", "mnist", runs)).split("\n")
    heading, paper, *ours = [re.split(" {2,}", line.strip()) for line in lines]
    assert heading == ["LeNet5 on MNIST", "Error %", "Units per layer", "CPU, LiteRT", "GPU", "FLOPs"]
    assert paper == ["Original", "paper", "0.80", "20 - 50 - 800 - 500", "1.00x", "1.00x", "1.00x"]
    assert [cells[-6:-3] for cells in ours] == [["ours", "11.50 -> 10.25 ± 2.48", "20 - 50 - 800 - 500"]] * 2
    assert [cells[:-6] for cells in ours] == [[], ["a method with a long name"]] and len({*map(len, lines)}) == 1


@pytest.mark.slow
def test_the_benchmark_prints_one_line_of_json():
    (line,) = scripts.run("benchmark", "--net=lenet-fc", "--seconds=0.1").stdout.splitlines()
    found = json.loads(line)
    assert {"net", "method", "batch_size", "precision", "steps", "compile_seconds", "peak_rss_mb"} < set(found)
    # 545,000 multiply-adds, forwards and twice backwards, of two operations each.
    assert found["gflops_per_second"] == pytest.approx(found["images_per_second"] * 545_000 * 6 / 1e9, rel=1e-2)


def test_the_benchmark_refuses_flags_that_do_nothing():
    done = scripts.run("benchmark", "--net=lenet-fc", "--threads=2")
    assert done.returncode and "--threads does nothing without --infer" in done.stderr
    done = scripts.run("benchmark", "--net=lenet-fc", "--infer=dense", "--noise_learning_rate=0.1")
    assert done.returncode and "--noise_learning_rate does nothing with --infer" in done.stderr
    done = scripts.run("benchmark", "--net=lenet-fc", "--infer=dense", "--threads=2")
    assert done.returncode and "--threads is of LiteRT" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, flag", [("sbp", "shrink_every"), ("original", "noise_learning_rate"), ("sparsevd", "noise_learning_rate")]
)
def test_the_benchmark_refuses_flags_of_other_methods(method, flag):
    done = scripts.run("benchmark", "--net=lenet-fc", f"--method={method}", f"--{flag}=1")
    assert done.returncode and f"--{flag} does nothing with --method={method}" in done.stderr


def test_weights_as_float16_take_half_the_file_and_keras_reads_them(tmp_path):
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(64, 3), keras.layers.BatchNormalization()])
    model.add(keras.layers.Dense(3000))
    whole, half = (networks.content(model, half) for half in (False, True))
    assert len(half) < 0.6 * len(whole)
    (tmp_path / "half.keras").write_bytes(half)
    for load in (keras.models.load_model, networks.load):
        read = load(str(tmp_path / "half.keras"))
        assert {weight.dtype for weight in read.weights} == {"float32"}
        for ours, theirs in zip(read.weights, model.weights, strict=True):
            np.testing.assert_array_equal(ours, np.float16(theirs).astype(np.float32))


def test_a_measurement_without_a_gpu_keeps_what_one_gave():
    measured = runpy.run_path(str(ROOT / "scripts" / "tables.py"))["_measured"]

    def figures(cpu, gpu):
        entries = [{"device": "CPU", "speedup": cpu}, *([{"device": "some GPU", "speedup": gpu}] if gpu else [])]
        return {"cpu_speedup": cpu, "gpu_speedup": gpu, "timing": entries}

    assert measured(figures(2.0, 3.0), figures(4.0, None)) == figures(4.0, 3.0)
    assert measured(figures(2.0, 3.0), figures(4.0, 5.0)) == figures(4.0, 5.0)
    assert measured(figures(2.0, None), figures(4.0, None)) == figures(4.0, None)
    by_xla = {"gpu_speedup": 5.0, "timing": [{"device": "some GPU", "speedup": 5.0}]}
    assert measured(figures(2.0, 3.0), by_xla)["timing"] == figures(2.0, 5.0)["timing"][::-1]
    tried = {"gpu_speedup": None, "timing": [{"device": "CPU", "speedup": 5.0}]}
    assert measured(figures(2.0, 3.0), tried) == figures(2.0, 3.0)


def test_a_mean_is_of_the_runs_that_have_the_figure():
    """Ten seeds have CPU figures, and those whose networks are in git a GPU's: 1.2 and 1.4 here, 12.706 * 0.1 apart."""
    run = json.loads((ROOT / "checkpoints" / "published" / "lenet5" / "result.json").read_text())
    runs = [run | {"method": "SSL", "seed": seed, "gpu_speedup": gpu} for seed, gpu in enumerate((1.2, 1.4, None))]
    (_, own) = report.rows("LeNet5", "mnist", {"SSL": {"ours": runs}})
    assert own[-2] == "1.30x ± 1.27"
    (_, none) = report.rows("LeNet5", "mnist", {"SSL": {"ours": [runs[2]]}})
    assert none[-2] == "-"
    collapsed = [*runs[:2], runs[2] | {"flops_speedup": None}]  # no unit is left: the others' mean would flatter
    (_, own) = report.rows("LeNet5", "mnist", {"SSL": {"ours": collapsed}})
    assert own[-1] == "-"
