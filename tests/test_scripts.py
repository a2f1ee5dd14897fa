"""The scripts as people run them: rows, restarts, and one line for every bad input."""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_sbp.utils.io import checkpoint, data, preprocessing, report
from tests.support import scripts

ROOT = Path(__file__).parents[1]


def run(script, folder, *arguments, **settings):
    return scripts.run(script, f"--checkpoints_dir={folder}", *arguments, **settings)


def stopped(script, folder, *arguments, by):
    """The exit status of a run that gets a signal when its third checkpoint is there."""
    return run(script, folder, *arguments, before=[("signal_after", int(by), 3)]).returncode


def weights(folder):
    return [np.asarray(v) for v in keras.models.load_model(folder / "network.keras").variables]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lenet5"
    done = run("lenet5", folder, "--dataset=digits", "--epochs=3")
    assert done.returncode == 0, done.stderr
    return folder


# A seed that checkpoints/ has no run of, whose row would stand above.
SBP = ["--dataset=digits", "--seed=99", "--epochs=12", "--shrink_every=4", "--noise_learning_rate=0.2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lenet-fc-sbp"
    done = run("lenet-fc-sbp", folder, *SBP)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_prints_its_row_and_nothing_else_and_leaves_what_design_says(undisturbed):
    folder, done = undisturbed
    header, row = done.stdout.splitlines()
    result = json.loads((folder / "result.json").read_text())
    assert header.split()[:3] == ["Lenet-fc", "on", "digits"]
    assert f"{result['error']:.2f}" in row and " - ".join(map(str, result["units"])) in row
    assert result["max_logit_difference"] < 1e-3
    pixels, dense1, dense2, classes = result["units"]
    assert [v.shape for v in weights(folder) if len(v.shape) > 1] == [(pixels, dense1), (dense1, dense2), (dense2, 10)]
    assert result["multiply_adds"] == pixels * dense1 + dense1 * dense2 + dense2 * classes
    assert result["flops_speedup"] == 545000 / result["multiply_adds"] > 1
    assert checkpoint.latest(folder)["model/dense1/kernel"].size < 784 * 500, "--shrink_every took no unit out"


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, arguments",
    [
        (
            "lenet5-ssl",
            ["--conv_strengths=1e-2,1e-4", "--strength=3e-3", "--learning_rate=0.3", "--checkpoint={pretrained}"],
        ),
        ("lenet-fc-sparsevd", ["--noise_learning_rate=0.15", "--kl_warmup=0.3"]),
        ("lenet5-sparsevd", ["--noise_learning_rate=0.15", "--kl_warmup=0.3", "--checkpoint={pretrained}"]),
    ],
)
def test_the_other_methods_leave_a_smaller_network(script, arguments, pretrained, tmp_path):
    arguments = [argument.format(pretrained=pretrained) for argument in arguments]
    done = run(script, tmp_path, "--dataset=digits", "--epochs=6", *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["multiply_adds"] < {"Lenet-fc": 545_000, "LeNet5": 2_293_000}[result["network"]]
    assert result["max_logit_difference"] < 1e-3


def test_a_lasso_that_takes_every_unit_while_the_network_is_trained_leaves_a_constant(tmp_path):
    done = run("lenet-fc-ssl", tmp_path, "--dataset=digits", "--epochs=6", "--shrink_every=1", "--strength=3e-3")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["units"][:3] == [0, 0, 0] and result["multiply_adds"] == 0
    # Of ten digits, each about as frequent, a constant is right about one.
    assert 85 < result["error"] < 95


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, splits",
    [([], ["train", "test"]), (["--validate"], ["train_minus_val", "val"])],
)
def test_a_run_reports_on_images_that_it_reads_once_and_at_its_end(flags, splits, tmp_path):
    """The test set, or with --validate, which does not read it, the images that are held out."""
    arguments = "--dataset=digits", "--epochs=3", *flags
    done = run("lenet-fc-sbp", tmp_path, *arguments, "--finetune_epochs=1", before=[("told_reads",)])
    assert re.findall(r"reads (\w+);", done.stderr) == splits
    assert done.stderr.index(f"reads {splits[1]};") > done.stderr.rindex("epoch ")
    images, labels = data.load("digits", "", splits[1])
    logits = np.asarray(keras.models.load_model(tmp_path / "network.keras")(preprocessing.scale(images)))
    error = json.loads((tmp_path / "result.json").read_text())["error"]
    assert error == pytest.approx(100 * np.mean(logits.argmax(-1) != labels), abs=1e-3)
    assert ("ours, held out" in done.stdout) == bool(flags)


def test_a_run_that_is_done_prints_its_row_again(undisturbed):
    folder, done = undisturbed
    before = (folder / "result.json").stat().st_mtime_ns
    again = run("lenet-fc-sbp", folder, *SBP)
    assert again.stdout == done.stdout
    assert (folder / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("by, status", [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_in_the_same_bits(undisturbed, tmp_path, by, status):
    assert stopped("lenet-fc-sbp", tmp_path, *SBP, by=by) == status
    again = run("lenet-fc-sbp", tmp_path, *SBP)
    assert again.returncode == 0 and "resuming from step" in again.stderr
    for ours, theirs in zip(weights(tmp_path), weights(undisturbed[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path, undisturbed[0]))
    for timed in ("seconds", "command"):
        del ours[timed], theirs[timed]
    assert ours == theirs


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(undisturbed, tmp_path):
    stopped("lenet-fc-sbp", tmp_path, *SBP, by=signal.SIGTERM)
    newest = max(tmp_path.glob("checkpoint-*.npz"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    again = run("lenet-fc-sbp", tmp_path, *SBP)
    assert f"{newest} is damaged" in again.stderr
    for ours, theirs in zip(weights(tmp_path), weights(undisturbed[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_with_0_epochs_a_smaller_network_is_fine_tuned_as_it_is(tmp_path):
    start = ROOT / "checkpoints" / "published" / "lenet5-sbpc-small"
    arguments = ["--dataset=digits", f"--checkpoint={start}", "--epochs=0", "--finetune_epochs=2"]
    done = run("lenet5-sbpc", tmp_path, *arguments, "--finetune_learning_rate=1e-3")
    assert done.returncode == 0, done.stderr
    result, published = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path, start))
    assert result["units"] == published["units"]
    images, labels = data.load("digits", "", "test")
    logits = keras.models.load_model(start / "network.keras")(images.astype("float32") / 255)
    assert result["error_before_finetuning"] == pytest.approx(100 * np.mean(np.argmax(logits, -1) != labels), abs=0.01)
    assert result["error"] < result["error_before_finetuning"]


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damaged_mnist(folder):
    """A data folder whose training images are cut short."""
    (folder / "mnist").mkdir()
    (folder / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00cut short")


def not_a_network(folder):
    (folder / "network.keras").write_bytes(b"not a zip")


@pytest.mark.parametrize(
    "script, arguments, said, prepare",
    [
        ("lenet5", ["--dataset=imagenet"], "imagenet", None),
        ("lenet5", ["--epochs=0"], "epochs", None),
        ("lenet5", ["--no_such_flag"], "no_such_flag", None),
        ("lenet5", ["--dataset=mnist", "--data_dir={tmp}"], "could not be downloaded", None),
        ("lenet5", ["--dataset=mnist", "--data_dir={tmp}"], "train-images-idx3-ubyte.gz", damaged_mnist),
        ("lenet5", ["--dataset=digits", "--num_gpus=8"], "has 0 GPUs", None),
        ("lenet5", ["--dataset=digits", "--batch_size=1501"], "1500 training images", None),
        ("lenet5", ["--dataset=digits", "--learning_rate=1e30"], "no longer finite at step", None),
        ("lenet5", ["--dataset=digits", "--checkpoints_dir=/proc/none"], "/proc/none", None),
        ("lenet5-sbp", ["--dataset=digits", "--checkpoint={tmp}"], "no network at", None),
        ("lenet5-sbp", ["--dataset=digits", "--checkpoint={tmp}"], "cannot read", not_a_network),
        ("lenet5-sbp", ["--dataset=digits", "--checkpoint={pretrained}", "--validate"], "holds out", None),
        ("lenet-fc-sbp", ["--dataset=digits", "--checkpoint={pretrained}"], "another network", None),
        ("lenet-fc-sbp", ["--dataset=digits", "--kl_scale=1,2"], "--kl_scale=1,2", None),
        ("lenet5", ["--dataset=digits", "--learning_rate=0"], "every learning rate is 0", None),
        ("vgglike-ssl", ["--dataset=digits", "--checkpoint={tmp}"], "reads images of (32, 32, 3)", None),
    ],
)
def test_bad_input_gets_one_line_and_status_2(script, arguments, said, prepare, pretrained, tmp_path):
    if prepare:
        prepare(tmp_path)
    before = files(tmp_path)
    arguments = [a.format(tmp=tmp_path, pretrained=pretrained) for a in arguments]
    done = run(script, tmp_path / "run", *arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and said in errors[0], done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    assert {path: content for path, content in files(tmp_path).items() if path.parent.name != "run"} == before


def test_a_published_network_is_measured_and_where_it_differs_said(undisturbed, tmp_path):
    """Of a run that is published here as it ended, and of one whose result.json has another error."""
    folder, done = undisturbed
    changes = {}
    for name, error in ("same", 0.0), ("other", 0.5):
        published = tmp_path / name / "lenet-fc-sbp-digits-seed99"
        shutil.copytree(folder, published)
        result = json.loads((published / "result.json").read_text())
        (published / "result.json").write_text(json.dumps(result | {"error": result["error"] + error}))
        changes[name] = [("published_at", str(tmp_path / name))]
    same, other = (scripts.run("lenet-fc-sbp", *SBP, "--evaluate", before=before) for before in changes.values())
    assert same.returncode == other.returncode == 0, same.stderr + other.stderr
    header, published, here = same.stdout.splitlines()
    assert published.split()[1] == "published" and here.split()[0] == "here"
    assert published.split()[2:] == here.split()[1:] == done.stdout.splitlines()[-1].split()[2:]
    assert "differs" not in same.stderr
    (eight_bits,) = re.findall(r"of eight bits: ([\d.]+) % error", same.stderr)
    assert float(eight_bits) == pytest.approx(float(published.split()[2]), abs=3)
    assert f"error differs: {tmp_path / 'other'}" in other.stderr and str(result["error"] + 0.5) in other.stderr
    # Nor does it wait for the other machines of a cluster.
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 1}}
    alone = [("environment", {"TF_CONFIG": json.dumps(cluster)})]
    given = scripts.run("lenet-fc-sbp", "--dataset=digits", "--evaluate", f"--checkpoint={folder}", before=alone)
    assert given.returncode == 0 and "differs" not in given.stderr, given.stderr
    _, recorded, again = given.stdout.splitlines()
    assert recorded.split()[1:] == ["recorded", *published.split()[2:]] and again.split() == here.split()
    wrong = scripts.run("lenet5-sbp", "--dataset=digits", "--evaluate", f"--checkpoint={folder}")
    assert wrong.returncode == 2 and "is Lenet-fc on digits, not LeNet5 on digits" in wrong.stderr
    seen = scripts.run("lenet-fc-sbp", "--dataset=digits", "--evaluate", f"--checkpoint={folder}", "--validate")
    assert seen.returncode == 2 and "holds out" in seen.stderr
    none = scripts.run("lenet-fc-sbp", "--dataset=fashion_mnist", "--evaluate")
    assert none.returncode == 2 and "no network is published" in none.stderr


def test_calibration_is_measured_of_a_run_with_noise(undisturbed, tmp_path):
    folder, done = undisturbed
    measured = scripts.run("calibration", f"--runs={folder}", f"--figures_dir={tmp_path}", "--data_dir=")
    assert measured.returncode == 0, measured.stderr
    expectation, *samples = [line.split(" | ") for line in measured.stdout.splitlines()[2:]]
    assert expectation[1:4] == ["E theta", "1", done.stdout.splitlines()[-1].split()[2]]
    assert [row[1] for row in samples] == ["1 sample", "4 samples", "16 samples"]
    assert list(tmp_path.glob("calibration-*.svg"))

    random_labels = tmp_path / "random"
    shutil.copytree(folder, random_labels)
    result = json.loads((folder / "result.json").read_text())
    (random_labels / "result.json").write_text(json.dumps(result | {"dataset": "digits-random"}))
    refused = scripts.run("calibration", f"--runs={random_labels}")
    assert refused.returncode == 2 and "is a run of random-labels.py" in refused.stderr


@pytest.mark.slow
def test_a_run_starts_from_the_published_network_and_has_its_rows_above(pretrained, tmp_path):
    published = tmp_path / "published" / "lenet5-digits-seed99"
    shutil.copytree(pretrained, published)
    arguments = "--dataset=digits", "--epochs=1", "--seed=99"
    done = run("lenet5-sbp", tmp_path / "run", *arguments, before=[("published_at", str(tmp_path / "published"))])
    assert done.returncode == 0, done.stderr
    assert f"{published}: restored conv1" in done.stderr
    header, original, own = done.stdout.splitlines()
    assert original.split()[:2] == ["Original", "published"] and own.split()[:2] == ["StructuredBP", "ours"]


@pytest.mark.slow
def test_a_script_starts_as_people_start_it():
    script = [sys.executable, ROOT / "scripts" / "lenet-fc.py", "--dataset=fashion_mnist", "--evaluate"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 2 and "error: no network is published" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow has oneDNN on x86-64")
def test_one_dnn_is_on_unless_it_is_turned_off(tmp_path):
    script = [sys.executable, ROOT / "scripts" / "lenet-fc.py", "--dataset=digits", "--checkpoint=none"]
    for given, on in (({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)):
        environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "0"} | given
        folder = tmp_path / str(on)
        subprocess.run([*script, f"--checkpoints_dir={folder}"], capture_output=True, env=environment)
        assert ("oneDNN custom operations are on" in (folder / "log.txt").read_text()) == on


def test_other_settings_do_not_overwrite_a_run(pretrained):
    before = (pretrained / "result.json").read_bytes()
    done = run("lenet5", pretrained, "--dataset=digits", "--epochs=4")
    assert done.returncode == 2 and "holds a run with --epochs=3: rerun" in done.stderr
    done = run("lenet5", pretrained, "--dataset=digits", "--epochs=3", "--num_gpus=0")
    assert done.returncode == 2 and "holds a run with no --num_gpus: rerun" in done.stderr
    assert (pretrained / "result.json").read_bytes() == before


@pytest.mark.slow
def test_a_network_that_is_neither_here_nor_published_is_made_first(tmp_path):
    done = run("lenet5-sbp", tmp_path / "run", "--dataset=digits", "--epochs=1", "--seed=98", "--shift=28")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "run-lenet5"
    assert f"{made}: restored conv1" in done.stderr and (made / "network.keras").exists()
    # Moved by up to their own size, most images have left the frame, and the rest may lie anywhere: else it has 1 %.
    assert report.read(made)["settings"]["shift"] == 28 and report.read(made)["error"] > 20


def test_a_full_disk_is_one_line(tmp_path):
    done = run("lenet5", tmp_path, "--dataset=digits", "--epochs=2", before=[("largest_file", 1_000_000)])
    assert done.returncode == 2 and "error: cannot write checkpoint-" in done.stderr, done.stderr
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.slow
def test_a_second_run_in_one_folder_is_refused(tmp_path):
    arguments = f"--checkpoints_dir={tmp_path}", "--dataset=digits", "--epochs=1000"
    os.mkfifo(tmp_path / "log.err")
    first = scripts.started("lenet5", arguments, tmp_path / "log")
    with open(tmp_path / "log.err") as said:
        seen = ""
        while ", epoch " not in seen:
            seen += said.read(100) or pytest.fail(seen)
        second = scripts.run("lenet5", *arguments)
        first.kill()
    assert first.status() == -signal.SIGKILL
    assert second.returncode == 2 and "another run is writing" in second.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", ["lenet5-sbp", "lenet-fc-sbp"])
def test_the_papers_schedule_has_its_settings(script, tmp_path, pretrained):
    """As shared by the paper and its authors' code; whatever is given on the command line holds all the same."""
    start = [f"--checkpoint={pretrained}"] if script == "lenet5-sbp" else []
    done = run(script, tmp_path / "run", "--dataset=digits", "--schedule=paper", "--epochs=1", *start)
    assert done.returncode == 0, done.stderr
    assert "ours, paper's settings" in done.stdout
    settings = json.loads((tmp_path / "run" / "result.json").read_text())["settings"]
    rates = {"learning_rate": 1e-3, "noise_learning_rate": 1e-3, "weight_decay": 0.0}
    expected = {"epochs": 1, "batch_size": 128, **rates, "kl_scale": [1.0], "log_sigma": -5.0, "shrink_every": 0}
    assert {name: settings[name] for name in expected} == expected and not settings["initial_kl_scale"]


HOME = """
import os
from absl import flags
from keras_sbp.utils.io import command_line
os.environ["HOME"] = "/home/somebody"
flags.DEFINE_string("some_dir", None, "")
command_line.run(lambda: print(flags.FLAGS.some_dir))
"""


def test_a_tilde_in_a_flag_is_the_home_folder():
    done = scripts.run(HOME, "--some_dir=~/runs")
    assert done.stdout == "/home/somebody/runs\n", done.stderr
