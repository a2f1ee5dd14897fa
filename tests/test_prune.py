"""scripts/prune.py: what it leaves, a run that is killed, and one line for every bad input."""

import pickle
import shutil
import signal

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_sbp.utils.pruning import counting
from tests.support import scripts


def residual():
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    x = L.Add(name="add")([x, L.Conv2D(8, 3, padding="same", name="third")(y)])
    x = L.Dense(16, activation="relu", name="dense")(L.Flatten(name="flat")(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax", name="classes")(x))


def made(count):
    """Which third of the image is bright."""
    rng = np.random.default_rng(count)
    y = rng.integers(3, size=count)
    x = rng.random((count, 8, 8, 1)).astype(np.float32) / 2
    for image, index in zip(x, y):
        image[3 * index : 3 * index + 2] += 1
    return x, y


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    residual().save(folder / "model.keras")
    (x, y), (x_test, y_test) = made(600), made(100)
    np.savez(folder / "data.npz", x=x, y=y, x_test=x_test, y_test=y_test)
    return folder


def prune(folder, *arguments, before=()):
    return scripts.run("prune", f"--output={folder / 'smaller.keras'}", *arguments, before=before)


SOME = "--epochs=6", "--batch_size=50", "--learning_rate=1e-2", "--noise_learning_rate=0.2", "--kl_scale=3"


def test_it_leaves_a_smaller_network_and_a_table(given, tmp_path):
    arguments = given / "model.keras", f"--data={given / 'data.npz'}", *SOME, "--finetune_epochs=1"
    done = prune(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    smaller = keras.models.load_model(tmp_path / "smaller.keras")
    assert all(type(op).__module__.startswith("keras.") for op in smaller.operations)
    units, figures = ([line.split() for line in part.splitlines()] for part in done.stdout.split("\n\n"))
    kernels = counting.kernels(smaller)
    whole = {"first": 8, "second": 8, "third": 8, "dense": 16, "classes": 3}
    assert [line[0] for line in units[1:]] == list(whole)
    for name, before, after, *why in units[1:]:
        assert (int(before), int(after)) == (whole[name], kernels.get(name, (0,))[-1])
        assert " ".join(why) == ("output of the network" if name == "classes" else "")
    found = {" ".join(line[:-3]) if line[-1].endswith("x") else line[0]: line for line in figures[1:]}
    # 64 positions of 9 weights from 1 to 8 filters, and twice from 8 to 8; 512 values to 16, and 16 to 3.
    assert found["Multiply-adds"][1] == f"{64 * 9 * (8 + 2 * 64) + 512 * 16 + 48:,}"
    assert found["Multiply-adds"][2] == f"{counting.multiply_adds(smaller):,}"
    assert found["Parameters"][2] == f"{smaller.count_params():,}"
    x, y = made(100)
    accuracy = np.mean(np.asarray(smaller(x)).argmax(1) == y)
    assert float(figures[1][-1]) == pytest.approx(100 * accuracy, abs=0.01) and accuracy > 0.9
    assert counting.multiply_adds(smaller) < 64 * 9 * (8 + 2 * 64)
    again = prune(tmp_path, *arguments)
    assert again.returncode == 2 and "already exists" in again.stderr


def test_filters_are_filled_up_to_a_multiple(given, tmp_path):
    done = prune(tmp_path, given / "model.keras", f"--data={given / 'data.npz'}", *SOME, "--multiple_of=5")
    assert done.returncode == 0, done.stderr
    kernels = counting.kernels(keras.models.load_model(tmp_path / "smaller.keras"))
    assert {kernels[name][-1] % 5 for name in ("first", "second", "third") if name in kernels} == {0}
    (accuracy,) = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Accuracy")]
    assert float(accuracy) > 90


def test_a_run_that_was_killed_goes_on(given, tmp_path):
    arguments = given / "model.keras", f"--data={given / 'data.npz'}", *SOME
    killed = prune(tmp_path, *arguments, before=[("killed_in_epoch", 4)])
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "smaller.keras").exists()
    other = prune(tmp_path, *arguments, "--kl_scale=2")
    assert other.returncode == 2 and "other flags or files" in other.stderr
    shutil.copy(given / "data.npz", tmp_path / "data.npz")
    with np.load(given / "data.npz") as arrays:
        np.savez(given / "data.npz", **{**arrays, "y": 2 - arrays["y"]})
    other = prune(tmp_path, *arguments)
    assert other.returncode == 2 and "other flags or files" in other.stderr, "the labels have changed"
    shutil.copy(tmp_path / "data.npz", given / "data.npz")
    # Where the network goes is nothing that it depends on.
    other = f"--output={tmp_path / 'other.keras'}", f"--checkpoints_dir={tmp_path / 'smaller-run'}"
    done = scripts.run("prune", *other, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Epoch 4/6" in done.stderr and "Epoch 3/6" not in done.stderr
    assert (tmp_path / "other.keras").exists() and not (tmp_path / "smaller.keras").exists()


def test_a_run_that_was_killed_while_it_saved_goes_on(given, tmp_path):
    arguments = given / "model.keras", f"--data={given / 'data.npz'}", *SOME, "--epochs=2"
    assert prune(tmp_path, *arguments, before=[("killed_in_epoch", 2)]).returncode == -signal.SIGKILL
    weights, epoch = (
        tmp_path / "smaller-run/training" / name for name in ("latest.weights.h5", "training_metadata.json")
    )
    # As a kill in the midst of the first save leaves it: half of the weights, and no epoch.
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    epoch.unlink()
    done = prune(tmp_path, *arguments)
    assert done.returncode == 0 and "Epoch 1/2" in done.stderr, done.stderr
    # In the midst of the second: an empty file for the epoch, and the save before in the backup.
    (tmp_path / "smaller.keras").unlink()
    epoch.write_text("")
    done = prune(tmp_path, *arguments)
    assert done.returncode == 0 and "Epoch 2/2" in done.stderr and "Epoch 1/2" not in done.stderr, done.stderr


def test_a_network_of_keras_applications(tmp_path):
    rng = np.random.default_rng(0)
    # Without a test set the last tenth is kept for it, here with a class that the rest has not.
    y = np.r_[np.arange(36) % 6, [6] * 4]
    # A column, as keras.datasets has them.
    np.savez(tmp_path / "data.npz", x=rng.random((40, 32, 32, 3)), y=y[:, None])
    done = prune(tmp_path, "--model=MobileNet", f"--data={tmp_path / 'data.npz'}", "--epochs=1", "--batch_size=36")
    assert done.returncode == 0, done.stderr
    smaller = keras.models.load_model(tmp_path / "smaller.keras")
    assert smaller.input_shape == (None, 32, 32, 3) and smaller.output_shape == (None, 7)


def test_without_data_it_takes_the_digits(tmp_path):
    inputs = keras.Input((28, 28, 1))
    x = L.Dense(20, activation="relu", name="dense")(L.Flatten()(inputs))
    keras.Model(inputs, L.Dense(10, name="logits")(x)).save(tmp_path / "model.keras")
    done = prune(tmp_path, tmp_path / "model.keras", "--epochs=2", "--batch_size=500")
    assert done.returncode == 0, done.stderr
    assert "dense" in done.stdout and (tmp_path / "smaller.keras").exists()


class Code:
    """What a pickle that runs code looks like."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write(folder, kind):
    """Bad input in a folder: its arguments."""
    (x, y), model, data = made(300), folder / "model.keras", folder / "data.npz"
    residual().save(model)
    arrays = {"x": x, "y": y}
    np.savez(data, **arrays)
    if kind == "damaged network":
        model.write_bytes(model.read_bytes()[:-100])
    elif kind == "a pickle":
        np.savez(data, x=np.array([Code(folder / "it ran")], dtype=object), y=y[:1], allow_pickle=True)
        return [model, f"--data={data}"]
    elif kind == "a pickle for a file":
        data.write_bytes(pickle.dumps(Code(folder / "it ran")))
        return [model, f"--data={data}"]
    elif kind == "subclassed":
        (folder / "model.keras").unlink()
        return ["--model=Model", f"--data={data}"]
    elif kind == "other shape":
        arrays["x"] = x[:, :7]
    elif kind == "other count":
        arrays["y"] = y[1:]
    elif kind == "one-hot":
        arrays["y"] = np.eye(3)[y]
    elif kind == "a number":
        arrays["x"] = x[0, 0, 0, 0]
    elif kind == "sigmoid":
        inputs = keras.Input((8, 8, 1))
        keras.Model(inputs, L.Dense(3, activation="sigmoid")(L.Flatten()(inputs))).save(model)
        arrays["y"] = y % 2
    elif kind == "quantised":
        network = keras.models.load_model(model)
        network.quantize("int8")
        network.save(model)
    elif kind == "out of range":
        arrays["y"] = y + 1
    elif kind == "beyond int32":
        arrays["y"] = y + 2**32
    elif kind == "negative":
        arrays["y"] = y - 1
    elif kind == "halves":
        arrays["y"] = y + 0.5
    elif kind == "not a number":
        arrays["x"] = np.where(x > 1, np.nan, x)
    elif kind == "text":
        arrays["x"] = x.astype(str)
    elif kind == "no y":
        del arrays["y"]
    elif kind == "half a test set":
        arrays["x_test"] = x
    elif kind == "too few":
        arrays = {"x": x[:1], "y": y[:1]}
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
        return ["--model=MobileNetV2", f"--data={data}"]
    elif kind == "shared":
        twice, inputs = L.Conv2D(1, 3, padding="same", name="twice"), keras.Input((8, 8, 1))
        keras.Model(inputs, L.Dense(3)(L.Flatten()(twice(twice(inputs))))).save(model)
    elif kind == "not built":
        keras.Sequential([L.Flatten(), L.Dense(3)]).save(model)
    elif kind == "two inputs":
        inputs = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
        x = L.Flatten()(L.Add()(inputs))
        keras.Model(inputs, L.Dense(3)(x)).save(model)
    elif kind == "other tokens":
        inputs = keras.Input((5,))
        keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.Embedding(10, 4)(inputs)))).save(model)
        arrays = {"x": np.arange(200).reshape(40, 5) % 11, "y": np.arange(40) % 3}
    np.savez(data, **arrays)
    more = {
        "shared": ["--multiple_of=8"],
        "excluded": ["--exclude=nowhere"],
        "other name": [f"--output={folder / 'smaller.h5'}"],
        "no weights": [f"--checkpoint={data}"],
        "batch": ["--batch_size=1000"],
        "not finite": ["--learning_rate=1e30", "--epochs=1", "--batch_size=10"],
        "no room": [f"--checkpoints_dir={model}/run"],
    }
    return [model, f"--data={data}", *more.get(kind, [])]


BAD = {
    "damaged network": "as a Keras model", "a pickle": "as .npz",
    "a pickle for a file": "as .npz", "subclassed": "keras.applications has no Model",
    "other shape": "reads examples of", "other count": "a class for each", "out of range": "knows classes 0 to 2",
    "beyond int32": "integer classes",
    "negative": "integer classes", "halves": "integer classes", "not a number": "not finite",
    "text": "numeric examples",
    "no y": "has no y", "half a test set": "both or neither", "too few": "examples of", "no data": "no data at",
    "no digits": "without --data", "no network": "no network at", "no name": "give one network",
    "no such application": "has no ResNet51", "too small": "does not take examples", "two inputs": "one input",
    "shared": "calls twice more than once", "excluded": "nowhere", "no weights": "no weights for",
    "batch": "use a smaller value",
    "not finite": "no longer finite",
    "one-hot": "y.argmax(1)", "a number": "an axis of examples", "sigmoid": "neither probabilities nor logits",
    "other name": "must end in .keras", "other tokens": "knows tokens 0 to 9",
    "no room": "cannot write", "not built": "is not built", "quantised": "already quantized",
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(kind, tmp_path):
    arguments = write(tmp_path, kind)
    before = sorted(tmp_path.rglob("*"))
    done = prune(tmp_path, *arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and BAD[kind] in errors[0], done.stderr
    assert "Traceback" not in done.stderr and not done.stdout and not (tmp_path / "it ran").exists()
    left = [path for path in sorted(tmp_path.rglob("*")) if "smaller-run" not in str(path)]
    assert left == before


OUTPUTS = """
import runpy, types
import keras, numpy as np
from keras import layers as L
script = runpy.run_path("scripts/prune.py")
data = types.SimpleNamespace(x=np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
def of(end):
    inputs = keras.Input((4,))
    try:
        return script["are_probabilities"](keras.Model(inputs, end(inputs)), data)
    except script["UserError"]:
        return "neither"
softmax = L.Dense(3, activation="softmax")
print(of(softmax), of(lambda x: L.Reshape((3,))(L.Softmax()(L.Dense(3)(x)))), of(keras.Sequential([softmax])))
print(of(lambda x: L.Average()([softmax(x), L.Dense(3, activation="softmax")(x)])))
print(of(lambda x: L.GlobalAveragePooling1D()(L.Conv1D(3, 2, activation="softmax")(L.Reshape((4, 1))(x)))))
print(of(L.Dense(3)), of(L.Dense(3, kernel_initializer="zeros")), of(lambda x: L.Dense(3)(softmax(x))))
print(of(L.Dense(3, activation="sigmoid")), of(lambda x: keras.ops.sigmoid(L.Dense(3)(x))), of(L.Dense(1, "sigmoid")))
"""


def test_a_softmax_is_told_from_logits_by_its_numbers():
    done = scripts.run(OUTPUTS)
    assert done.stdout.split() == ["True"] * 5 + ["False"] * 3 + ["neither"] * 3, done.stderr


def test_a_subclassed_network_is_one_line(given, tmp_path):
    """As Keras saves it, with a class that this process does not know; and one that it knows."""

    @keras.saving.register_keras_serializable(package="test_prune")
    class Own(keras.Model):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (-1, 64)))

    model = Own()
    model(np.zeros((1, 8, 8, 1)))
    model.save(tmp_path / "own.keras")
    done = prune(tmp_path, tmp_path / "own.keras", f"--data={given / 'data.npz'}")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: ")
