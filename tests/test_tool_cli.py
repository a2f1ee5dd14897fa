"""keras-sbp prune and scripts/prune.py: what they leave, a run that is killed, and one line for every bad input."""

import json
import os
import pickle
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_sbp.utils.tool import cli, examples, models, tasks
from tests.support import scripts
from tests.support.digits import dense, digits, train
from tests.support.slow import cases

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
QUICK = "--epochs=6", "--finetune_epochs=2", "--target=3"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    x, y = digits()
    train(dense(), SPARSE, x, y).save(folder / "model.keras")
    np.savez_compressed(folder / "data.npz", x_train=x[:1400], y_train=y[:1400], x_test=x[1400:], y_test=y[1400:])
    return folder


def prune(folder, *arguments, before=()):
    return scripts.run("prune", f"--output={folder / 'smaller.keras'}", *arguments, before=before)


def test_help_and_a_bad_flag_need_no_tensorflow():
    code = """
import contextlib, sys
from keras_sbp.utils.tool import cli
for arguments in (["prune", "--help"], ["prune", "a.keras", "--targt=3"], ["prune", "none.keras"], ["prune"]):
    with contextlib.suppress(SystemExit):
        cli.main(arguments)
sys.exit("tensorflow" in sys.modules or "keras" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=scripts.ROOT)
    assert done.returncode == 0 and "--max_drop" in done.stdout, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error"] * 3


def test_paths_begin_at_home_and_empty_names_are_none(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    paths = [f"--{name}=~/{name}" for name in ("data", "output", "checkpoint", "checkpoints_dir", "custom_objects")]
    options = cli._parse(["prune", "~/model.keras", *paths, "--exclude=,first,"])
    assert (options.network, options.exclude) == ("/somewhere/model.keras", ["first"])
    assert (options.data, options.output) == ("/somewhere/data", "/somewhere/output")
    assert (options.checkpoint, options.checkpoints_dir) == ("/somewhere/checkpoint", "/somewhere/checkpoints_dir")
    assert options.custom_objects == "/somewhere/custom_objects"
    assert cli._parse(["prune", "model.keras", "--exclude="]).exclude == []


def test_it_leaves_a_smaller_network_a_report_and_a_quiet_terminal(given, tmp_path):
    command = [sys.executable, "scripts/prune.py", given / "model.keras", f"--data={given / 'data.npz'}", *QUICK]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'smaller.keras'}"], capture_output=True, text=True, cwd=scripts.ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    shown = ("training:", "fine-tuning", "warning: ")
    assert lines and all(line.strip("\x1b[A").startswith(shown) for line in lines), done.stderr
    assert "tensorflow" in (tmp_path / "smaller-run/log.txt").read_text().lower(), "it went to the log"
    smaller = keras.models.load_model(tmp_path / "smaller.keras")
    report = json.loads((tmp_path / "smaller-run/report.json").read_text())
    assert report["macs_ratio"] == pytest.approx(3, rel=0.05)
    x, y = digits()
    right = np.asarray(smaller(x[1400:])).argmax(1) == y[1400:]
    assert report["after"]["score"] == pytest.approx(100 * right.mean(), abs=1e-6) and right.mean() > 0.5
    assert "smaller.keras: keras.models.load_model opens it" in done.stdout


@pytest.mark.slow
def test_a_run_that_is_killed_ends_in_the_same_bits(given, tmp_path):
    arguments = given / "model.keras", f"--data={given / 'data.npz'}", *QUICK
    (tmp_path / "whole").mkdir()
    assert prune(tmp_path / "whole", *arguments).returncode == 0
    whole = keras.models.load_model(tmp_path / "whole/smaller.keras").get_weights()
    killed = prune(tmp_path, *arguments, before=[("killed_in_epoch", 4)])
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "smaller.keras").exists()
    other = prune(tmp_path, *arguments, "--seed=2")
    assert other.returncode == 2 and "another data and seed" in other.stderr
    done = prune(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    again = keras.models.load_model(tmp_path / "smaller.keras").get_weights()
    assert all(map(np.array_equal, whole, again))


def test_a_full_disk_is_one_line(given, tmp_path):
    """On a line of its own, after the bar of the training."""
    done = prune(
        tmp_path, given / "model.keras", f"--data={given / 'data.npz'}", *QUICK, before=[("largest_file", 30_000)]
    )
    errors = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and "make room" in errors[0], done.stderr


OWN = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def own_loss(y, logits):
    return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
"""


@pytest.mark.slow
def test_layers_and_losses_of_somebodys_own_and_h5(tmp_path):
    x, y = digits()
    (tmp_path / "own.py").write_text(OWN)
    names = {}
    exec(OWN, names)
    model = keras.Sequential([*dense().layers[:-1], names["Doubled"](), layers.Dense(10, name="last")])
    model = keras.Sequential([keras.Input((64,)), *model.layers])
    train(model, names["own_loss"], x, y).save(tmp_path / "model.h5")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    arguments = tmp_path / "model.h5", f"--data={tmp_path / 'data.npz'}", *QUICK
    done = prune(tmp_path, *arguments)
    assert done.returncode == 2 and "--custom_objects=FILE.py" in done.stderr
    done = prune(tmp_path, *arguments, f"--custom_objects={tmp_path / 'own.py'}")
    assert done.returncode == 0 and (tmp_path / "smaller.keras").exists(), done.stderr
    # Another target, from the network with noise, which has the layers, too.
    (tmp_path / "smaller.keras").unlink()
    done = prune(tmp_path, *arguments, f"--custom_objects={tmp_path / 'own.py'}", "--target=2")
    assert done.returncode == 0 and "training:" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_loss_that_is_not_known_here_is_not_needed(name, tmp_path):
    def own_loss(y, outputs):
        return keras.ops.sum(outputs)

    model = dense()
    model.compile("sgd", own_loss)
    model.save(tmp_path / name)
    loaded = models.load(str(tmp_path / name))
    assert not loaded.compiled and all(map(np.array_equal, loaded.get_weights(), model.get_weights()))


SMOOTHED = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.5)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("loss", ["mae", SMOOTHED, {"last": SMOOTHED}], ids=["name", "object", "by output"])
def test_a_metric_that_is_not_known_here_leaves_the_loss(loss, name, tmp_path):
    def own_metric(y, outputs):
        return keras.ops.max(outputs)

    model, (x, _) = dense(), digits()
    model.compile("sgd", loss, metrics=[own_metric])
    model.save(tmp_path / name)
    found = tasks.of(models.load(str(tmp_path / name)), examples.part((x, x[:, :10]), "data"))
    assert found.source == "as compiled"
    # Of a label of 0, smoothed to 0.25, and a logit of 3.
    value = keras.losses.get(found.loss)(np.zeros((1, 10)), np.full((1, 10), 3.0))
    assert float(np.mean(value)) == pytest.approx(3 if loss == "mae" else np.log(1 + np.exp(3)) - 0.25 * 3)


class Code:
    """What a pickle that runs code looks like."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write(folder, kind):
    """Bad input in a folder: its arguments."""
    x, y = digits()
    model, data = folder / "model.keras", folder / "data.npz"
    dense().save(model)
    arrays = {"x": x, "y": y}
    if kind == "damaged network":
        model.write_bytes(model.read_bytes()[:-100])
    elif kind == "a pickle":
        np.savez(data, x=np.array([Code(folder / "it ran")], dtype=object), y=y[:1], allow_pickle=True)
        return [model, f"--data={data}"]
    elif kind == "a pickle for a file":
        data.write_bytes(pickle.dumps(Code(folder / "it ran")))
        return [model, f"--data={data}"]
    elif kind == "other shape":
        arrays["x"] = x[:, :50]
    elif kind == "out of range":
        arrays["y"] = y + 1
    elif kind == "nothing to prune":
        inputs = keras.Input((64,))
        keras.Model(inputs, layers.Dense(10, name="last")(inputs)).save(model)
    elif kind == "weights only":
        dense().save_weights(folder / "model.weights.h5")
        model = folder / "model.weights.h5"
    elif kind == "not built":
        keras.Sequential([layers.Dense(3)]).save(model)
    elif kind == "quantized":
        network = keras.models.load_model(model)
        network.quantize("int8")
        network.save(model)
    elif kind == "no data":
        return [model, f"--data={folder / 'none.npz'}"]
    elif kind == "no digits":
        return [model]
    elif kind == "no network":
        return [folder / "none.keras"]
    elif kind == "no name":
        return []
    elif kind == "no such application":
        return ["--model=ResNet51"]
    elif kind == "too small":
        np.savez(data, x=np.zeros((40, 8, 8, 1)), y=np.arange(40) % 4)
        return ["--model=MobileNetV2", f"--data={data}"]
    np.savez(data, **arrays)
    more = {
        "excluded": ["--exclude=nowhere"],
        "no stem": [f"--output={folder / '.keras'}"],
        "other name": [f"--output={folder / 'smaller.h5'}"],
        "no weights": [f"--checkpoint={data}"],
        "batch": ["--batch_size=10000"],
        "not finite": ["--learning_rate=1e30", "--epochs=1"],
        "no room": [f"--checkpoints_dir={model}/run"],
        "two targets": ["--target=2", "--max_drop=1"],
        "out of reach": ["--target=1e9"],
        "not a number": ["--target=three"],
    }
    return [model, f"--data={data}", *more.get(kind, [])]


BAD = {
    "damaged network": "as a Keras model", "a pickle": "cannot read",
    "a pickle for a file": "cannot read",
    "other shape": "reads examples of", "out of range": "knows classes 0 to 9",
    "nothing to prune": "nothing can be removed",
    "not built": "is not built", "quantized": "already", "no data": "no data at", "no digits": "without --data",
    "no network": "no file at", "no name": "give one network", "no such application": "has no ResNet51",
    "too small": "does not take examples", "excluded": "nowhere", "other name": "must end in .keras",
    "no weights": "no weights for", "batch": "smaller value", "not finite": "no longer finite",
    "no room": "cannot write", "weights only": "has weights only: save the model itself", "no stem": "has no name",
    "two targets": "not allowed with", "out of reach": "cannot be reached", "not a number": "invalid float value",
}  # fmt: skip


@pytest.mark.parametrize("kind", cases(BAD, slow={"quantized", "not finite"}))
def test_bad_input_is_one_line_and_nothing_is_written(kind, tmp_path):
    arguments = write(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    done = prune(tmp_path, *arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and BAD[kind] in errors[0], done.stderr
    assert len(errors[0]) < 500 and "Traceback" not in done.stderr and not done.stdout
    assert not (tmp_path / "it ran").exists()
    left = [path for path in sorted(tmp_path.rglob("*")) if "smaller-run" not in str(path)]
    assert left == before
