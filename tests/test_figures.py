"""The other experiments and the pictures: curves, thresholds, predictions, fine-tuning, against counts by hand."""

import gzip
import json
import shutil
import struct
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import lenet_fc
from keras_sbp.utils import pruning, training
from keras_sbp.utils.io import checkpoint, command_line, data, figures, image_files, preprocessing, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.training.summaries import Summaries
from tests.support import scripts

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n"


def error_line(done):
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout
    return line


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory):
    """A Lenet-fc with dead units in it still, and trained on without noise."""
    folder = tmp_path_factory.mktemp("runs") / "lenet-fc-sbp"
    done = scripts.run(
        "lenet-fc-sbp",
        f"--checkpoints_dir={folder}",
        *["--dataset=digits", "--epochs=12", "--shrink_every=0", "--noise_learning_rate=0.2"],
        *["--finetune_epochs=3", "--finetune_learning_rate=1e-3"],
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_an_epoch_written_twice_counts_once(tmp_path):
    for values in ({1: 3.0, 2: 2.0, 3: 9.0}, {3: 1.0, 4: 0.5}):
        with tf.summary.create_file_writer(str(tmp_path)).as_default():
            for epoch, value in values.items():
                tf.summary.scalar("loss", value, epoch)
    assert figures.curves(tmp_path) == {"loss": ([1, 2, 3, 4], [3.0, 2.0, 1.0, 0.5])}
    assert figures.curves(tmp_path / "none") == {}


def test_an_epoch_s_summary_is_on_the_disk_before_the_run_ends(tmp_path):
    """Where one that is killed has it: the writer is still open here."""
    summaries = Summaries(str(tmp_path))
    summaries.write(1, {"loss": 2.0, "kl": 3.0, "error": 0.25}, {"dense": np.arange(4) < 3}, {})
    found = figures.curves(tmp_path)
    assert found["loss"] == ([1], [2.0]) and found["accuracy"] == ([1], [0.75]) and found["units/dense"] == ([1], [3.0])


@pytest.mark.slow
def test_finetuning_changes_the_weights_and_the_row_shows_both_errors(finetuned):
    folder, done = finetuned
    result = report.read(folder)
    before, after = result["error_before_finetuning"], result["error"]
    assert f"{before:.2f} -> {after:.2f}" in done.stdout
    # By hand: the error of either network, and the same live units in both.
    test = data.load("digits", "", "test")
    trained, smaller = (
        training.load_network(checkpoint.latest(folder)),
        keras.models.load_model(folder / "network.keras"),
    )
    for model, error in ((trained, before), (smaller, after)):
        wrong = np.argmax(model(preprocessing.scale(test.images)), -1) != test.labels
        assert 100 * wrong.mean() == pytest.approx(error, abs=1e-4)
    live = [int((layer.snr().numpy() > 1).sum()) for layer in trained.layers if isinstance(layer, SBP)]
    assert all(0 < left <= alive for left, alive in zip(result["units"], live)) and result["units"][0] < 784
    assert [smaller.get_layer(name).kernel.shape[0] for name in ("dense1", "dense2", "logits")] == result["units"][:3]
    mask = trained.get_layer("dense2_unit").snr().numpy() > 1
    before = trained.get_layer("logits").bias.numpy()
    assert mask.any() and not np.array_equal(before, smaller.get_layer("logits").bias.numpy())
    assert {path.suffix for path in (folder / "finetune").iterdir()} >= {".npz", ".v2"}


@pytest.mark.slow
def test_finetuning_of_another_run_is_not_gone_on_with(finetuned, tmp_path):
    """Of a folder whose training was taken away, and what it left."""
    shutil.copytree(finetuned[0] / "finetune", tmp_path / "run" / "finetune")
    done = scripts.run(
        "lenet-fc-sbp",
        f"--checkpoints_dir={tmp_path / 'run'}",
        *["--dataset=digits", "--epochs=1", "--noise_learning_rate=0.2", "--finetune_epochs=3"],
    )
    assert "holds a run with --epochs=12" in error_line(done)


@pytest.mark.slow
def test_the_threshold_1_gives_the_row_and_higher_ones_fewer_units(finetuned, tmp_path):
    folder, _ = finetuned
    done = scripts.run("threshold", f"--run={folder}", "--thresholds=2,1,0.01,1000", f"--figures_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    cells = [line.replace(" - ", "-").split() for line in done.stdout.splitlines()[2:]]
    result = report.read(folder)
    assert [row[0] for row in cells] == ["0.01", "1", "2", "1000", "evidence"]
    assert cells[1][1:] == [
        f"{result['error_before_finetuning']:.2f}",
        "-".join(map(str, result["units"])),
        f"{result['flops_speedup']:.2f}x",
    ]
    assert cells[0][2:] == ["784-500-300-10", "1.00x"]
    # No unit is above 1000: a constant, which is right as often as its class is there.
    assert cells[3][2:] == ["0-0-0-10", "-"]
    labels = data.load("digits", "", "test").labels
    assert float(cells[3][1]) in [round(100 * np.mean(labels != label), 2) for label in range(10)]
    noise = [layer for layer in training.load_network(checkpoint.latest(folder)).layers if isinstance(layer, SBP)]
    by_evidence = []
    for left, layer in zip(cells[2][2].split("-"), noise):
        assert int(left) <= (layer.snr().numpy() > 2).sum()
        ratio = truncated_log_normal.log_evidence_ratio(layer.mu.value, layer.log_sigma.value).numpy()
        by_evidence.append((ratio < 0).sum())
    left = [int(units) for units in cells[4][2].split("-")]
    assert all(0 < own <= alive for own, alive in zip(left, by_evidence))
    (picture,) = tmp_path.glob("threshold-*.png")
    assert picture.read_bytes().startswith(PNG) and picture.with_suffix(".svg").exists()


@pytest.mark.slow
def test_a_threshold_needs_the_training_checkpoint(finetuned, tmp_path):
    for name in ("network.keras", "result.json"):
        shutil.copy(finetuned[0] / name, tmp_path)
    assert "lenet5-sbp.py --schedule=paper" in error_line(scripts.run("threshold", f"--run={tmp_path}"))


@pytest.mark.slow
def test_a_shrunk_run_says_which_thresholds_are_gone(finetuned, tmp_path):
    arrays = checkpoint.latest(finetuned[0])
    settings = json.loads(str(arrays["settings"])) | {"shrink_every": 5}
    checkpoint.save(str(tmp_path), 1, arrays | {"settings": np.array(json.dumps(settings))})
    report.write(tmp_path, report.read(finetuned[0]))
    arguments = f"--run={tmp_path}", "--thresholds=0.5,0.1", f"--figures_dir={tmp_path}"
    said = error_line(scripts.run("threshold", *arguments))
    assert "--thresholds=0.5,0.1 has none from 1 on" in said
    done = scripts.run("threshold", f"--run={tmp_path}", "--thresholds=1,2", f"--figures_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    # The evidence would keep units that the ratio has removed.
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["1", "2"]


@pytest.mark.slow
def test_thresholds_of_a_network_of_14_layers_are_drawn(tmp_path):
    """VGG-like has more layers than there are colours."""
    draw = f"""import runpy
script = runpy.run_path({str(ROOT / "scripts" / "threshold.py")!r})
script["FLAGS"](["", "--figures_dir={tmp_path}"])
rows = [(1.0, 7.5, [64] * 14, 2.3), (2.0, 9.0, [32] * 14, 4.0), (None, 8.0, [40] * 14, 3.0)]
script["figures"].plt.close = lambda figure: None
script["draw"]("VGG-like", rows, 1.0)
errors, units, _ = script["figures"].plt.gcf().axes
print([len(line.get_xdata()) for line in units.lines[:14]] == [2] * 14)
print([list(line.get_ydata()) for line in errors.lines if line.get_label() == "by the evidence"])"""
    done = scripts.run(draw)
    assert done.returncode == 0 and (tmp_path / "threshold-lenet5-sbp.png").exists(), done.stderr
    assert done.stdout.splitlines() == ["True", "[[8.0, 8.0]]"]


def test_the_map_of_pixels_knows_each_pixel_s_place():
    model = lenet_fc.lenet_fc(unit=lambda name: SBP(name=name))
    alive = np.zeros((28, 28), bool)
    alive[5:9, 3:21] = True
    sigma = np.where(alive, -3.0, 2.0).ravel()
    sigma[5 * 28 + 4] = -2.0
    noise = model.get_layer("pixels_unit")
    noise.log_sigma.assign(sigma)
    noise.mu.assign(np.full(784, -1.0))
    whole = figures.pixel_snr(model)
    np.testing.assert_array_equal(np.isfinite(whole), alive)
    # A log-normal far from its ends: SNR = 1 / sqrt(exp(sigma^2) - 1).
    assert whole[5, 4] == pytest.approx((np.exp(np.exp(-4.0)) - 1) ** -0.5, rel=1e-4)
    dead = {layer.name: layer.multiplier().numpy() == 0 for layer in model.layers if isinstance(layer, SBP)}
    smaller, origin = pruning.remove_units(model, dead)
    for new, old, index, _ in origin:
        new.assign(old.numpy()[index])
    # Above 256, bfloat16 has not every number.
    for layer in smaller.layers:
        layer.dtype_policy = "mixed_bfloat16"
    np.testing.assert_array_equal(figures.pixel_snr(smaller), whole)


@pytest.mark.slow
def test_figures_draws_what_is_there_and_says_what_is_not(finetuned, tmp_path):
    """The folder of one run, and none of the others: its picture, and the commands for the rest."""
    result = report.read(finetuned[0])
    for folder, dataset in (
        ("lenet-fc-sbp", "mnist"),
        ("lenet-fc-sbp-seed1", "mnist"),
        ("my-own", "mnist"),
        ("lenet5", "digits"),
    ):
        (tmp_path / folder).mkdir()
        network = "LeNet5" if folder == "lenet5" else "Lenet-fc"
        report.write(tmp_path / folder, result | {"network": network, "dataset": dataset})
    done = scripts.run("figures", f"--checkpoints_dir={tmp_path}", f"--figures_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("*.png")] == ["error-flops-lenet-fc.png"]
    assert (tmp_path / "error-flops-lenet-fc.png").read_bytes().startswith(PNG)
    for lacking in ("lenet5", "vgglike.py", "lenet-fc-sbp.py", "lenet5-sbpc.py"):
        assert lacking in done.stderr


@pytest.mark.slow
def test_the_bound_of_both_runs_and_mu_that_stays_at_0(tmp_path):
    base = tmp_path / "bound"
    folders = f"--checkpoints_dir={base}", f"--figures_dir={tmp_path}"
    done = scripts.run("bound", "--dataset=digits", "--epochs=2", *folders)
    assert done.returncode == 0, done.stderr
    bounds = []
    for end, fixed in (("mu-fixed", True), ("mu-learned", False)):
        arrays = checkpoint.latest(f"{base}-{end}")
        assert all((arrays[f"model/{name}_unit/mu"] == 0).all() == fixed for name in ("pixels", "dense1", "dense2"))
        curves = figures.curves(f"{base}-{end}")
        bounds.append(-(1500 * curves["loss"][1][-1] + curves["kl"][1][-1]))
    printed = [float(line[26:39].replace(",", "")) for line in done.stdout.splitlines()[1:]]
    assert printed == pytest.approx(bounds, abs=1)
    assert (tmp_path / "bound-digits.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_noise_has_rates_of_its_own_beside_muon_on_random_labels():
    done = scripts.run(f"""import runpy
script = runpy.run_path({str(ROOT / "scripts" / "random-labels.py")!r})
method = script["RandomLabels"](fixed_mu=True, noise_learning_rate=0.5, kernel_learning_rate=0.25, learning_rate=10.0)
model = script["NETWORKS"]["LeNet5"].build(unit=method.unit)
updates = method.updates(model, num_examples=100)
print({{updates.rate(v) for v in model.trainable_variables if v.name == "mu"}})
print([(type(o).__name__, sorted({{v.name for v in vs}})) for o, vs in updates.optimizers(model, 10)])""")
    rates, optimizers = done.stdout.splitlines()
    assert rates == "{0.0}", done.stderr
    # In the order of their rates: 10 / 100, 0.25 and 0.5.
    kinds = [("Muon", ["bias", "kernel"]), ("Muon", ["kernel"]), ("FusedAdam", ["log_sigma"])]
    assert optimizers == str(kinds)


@pytest.mark.slow
def test_random_labels_leave_sbp_a_constant_and_each_network_the_error_of_its_row(tmp_path):
    base = tmp_path / "run"
    arguments = ["--dataset=digits-random", "--epochs=2", "--batch_size=64", "--shrink_every=1"]
    arguments += ["--noise_learning_rate=0.5", f"--figures_dir={tmp_path}"]
    done = scripts.run("random-labels", *arguments, f"--checkpoints_dir={base}")
    assert done.returncode == 0 and "no unit was removed" not in done.stderr, done.stderr
    assert all((tmp_path / f"run-{method}/log.txt").exists() for method in ("dropout", "sbp"))
    rows = [line.replace(" - ", "-").split() for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["Dropout", "StructuredBP"]
    assert [row[3] for row in rows] == ["20-50-800-500", "0-0-0-0"]
    for method, row in zip(("dropout", "sbp"), rows):
        network = keras.models.load_model(f"{base}-{method}/network.keras")
        for column, split in ((1, "train"), (2, "test")):
            images, labels = data.load("digits-random", "", split)
            logits = np.asarray(network(preprocessing.standardize(images)))
            assert 100 * np.mean(logits.argmax(-1) != labels) == pytest.approx(float(row[column]), abs=0.01)
            assert (np.ptp(logits, 0) == 0).all() == (method == "sbp")
        curves = figures.curves(f"{base}-{method}")
        assert curves["test_error"][1][-1] == pytest.approx(float(row[2]), abs=0.01)
    assert (tmp_path / "random-labels-lenet5.png").read_bytes().startswith(PNG)


def test_a_script_that_fails_ends_the_one_that_called_it_as_it_did_and_its_rows_go_to_stderr(capfd):
    command_line.call([sys.executable, "-c", "print('row')"])
    assert capfd.readouterr() == ("", "row\n")
    with pytest.raises(SystemExit, match="3"):
        command_line.call([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.fixture(scope="module")
def brightest(tmp_path_factory):
    """A network that names the row, of ten, with the most light in it."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.AveragePooling2D((2, 28))(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.ops.take(x, list(range(10)), axis=-1)
    x = keras.layers.Rescaling(100.0)(x)
    path = tmp_path_factory.mktemp("network") / "network.keras"
    keras.Model(inputs, x).save(path)
    return path


@pytest.mark.slow
def test_predict_reads_idx_packed_or_not_and_image_files(brightest, tmp_path):
    rows = np.array([7, 0, 3])
    images = np.zeros((3, 28, 28), np.uint8)
    images[np.arange(3), 2 * rows] = 255
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape) + images.tobytes()
    (tmp_path / "idx3-ubyte").write_bytes(content)
    (tmp_path / "idx3-ubyte.gz").write_bytes(gzip.compress(content))
    # Twice the size, grey in colours: brought to the network's.
    large = np.repeat(np.repeat(images[0], 2, 0), 2, 1)[..., None].repeat(3, -1)
    (tmp_path / "image.png").write_bytes(tf.io.encode_png(large).numpy())
    (tmp_path / "dark.png").write_bytes(tf.io.encode_png(255 - large).numpy())
    files = [tmp_path / name for name in ("idx3-ubyte", "idx3-ubyte.gz", "image.png")]
    done = scripts.run("predict", brightest, *files)
    assert done.returncode == 0, done.stderr
    seen = [line.split(": ")[1].split()[:2] for line in done.stdout.splitlines()]
    assert seen == [["7", "100.00"], ["0", "100.00"], ["3", "100.00"]] * 2 + [["7", "100.00"]]
    assert scripts.run("predict", brightest, "--invert", tmp_path / "dark.png").stdout.split(": ")[1].split()[0] == "7"


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 28, 28) + bytes(3 * 28 * 28 - 1),
        struct.pack(">BBBB3I", 0, 0, 8, 3, 3, 28, 27) + bytes(3 * 28 * 27),
        struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 28, 28),
        struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
        struct.pack(">BBBBI", 0, 0, 8, 1, 4) + bytes(4),
        b"\0\0\x08",
        b"\0\0\x08\xff\0",
        b"\0\0\x08\0",
        b"",
        b"\x1f\x8bnot so",
        b"hello",
        b"\x89PNG\r\n\x1a\ncut short",
    ],
)
def test_a_file_without_such_images_is_an_error(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="file"):
        image_files.read(tmp_path / "file", (28, 28, 1))


@pytest.mark.slow
def test_predict_refuses_in_one_line(tmp_path):
    assert "none.keras" in error_line(scripts.run("predict", tmp_path / "none.keras", tmp_path / "image.png"))
