"""Checkpoint: a fit of anybody's that is killed ends in the same bits."""

import errno

import keras
import numpy as np
import pytest
from keras import layers

import keras_sbp as sbp
from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.io.command_line import UserError


class Killed(Exception):
    """In the place of SIGKILL, which no test of one process survives; tests/test_tool_cli.py sends a real one."""


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


class Shuffling(keras.utils.PyDataset):
    """Shuffled and augmented anew in every epoch."""

    def __init__(self):
        super().__init__()
        self.x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        self.y = self.x[:, :1] > 0
        self.set_epoch(0)

    def set_epoch(self, epoch):
        self.epoch, self.order = epoch, np.random.default_rng(epoch).permutation(64)

    def __len__(self):
        return 4

    def __getitem__(self, number):
        chosen = self.order[16 * number : 16 * (number + 1)]
        return self.x[chosen] + np.random.default_rng([self.epoch, number]).normal(0, 0.1), self.y[chosen]


def model(dtype=None):
    """With weights, moments of the optimizer, statistics and seeds that all have to come back."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4,))
    hidden = layers.Dropout(0.3)(layers.BatchNormalization()(layers.Dense(8, "relu", dtype=dtype)(inputs)))
    made = keras.Model(inputs, layers.Dense(1)(hidden))
    made.compile(
        sbp.optimizer(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.1)),
        "mse",
        metrics=["mae"],
        jit_compile=False,
    )
    return made


def fit(folder, *callbacks, dtype=None):
    made, data = model(dtype), Shuffling()
    made.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=[sbp.Checkpoint(folder, data), *callbacks])
    return made.get_weights()


@pytest.mark.parametrize(
    "at",
    [
        pytest.param((0, 1), marks=pytest.mark.slow, id="first epoch"),
        pytest.param((3, 0), id="an epoch's start"),
        pytest.param((3, 3), marks=pytest.mark.slow, id="its end"),
    ],
)
def test_a_fit_that_is_killed_ends_in_the_same_bits(at, tmp_path):
    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", Kill(*at))
    epochs = []
    counted = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    assert all(map(np.array_equal, whole, fit(tmp_path / "killed", counted)))
    assert epochs == list(range(at[0], 5))
    # When it is done, it is not trained again.
    assert all(map(np.array_equal, whole, fit(tmp_path / "killed")))


@pytest.mark.slow
def test_a_fit_of_arrays_that_is_killed_ends_in_the_same_bits(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)

    def fit_arrays(folder, *callbacks):
        made = model()
        made.fit(x, x[:, :1], 16, epochs=5, verbose=0, callbacks=[sbp.Checkpoint(folder), *callbacks])
        return made.get_weights()

    whole = fit_arrays(tmp_path / "whole")
    with pytest.raises(Killed):
        fit_arrays(tmp_path / "killed", Kill(2, 2))
    assert all(map(np.array_equal, whole, fit_arrays(tmp_path / "killed")))


@pytest.mark.slow
def test_weights_of_bfloat16(tmp_path):
    whole = fit(tmp_path / "whole", dtype="bfloat16")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", Kill(3, 1), dtype="bfloat16")
    assert all(map(np.array_equal, whole, fit(tmp_path / "killed", dtype="bfloat16")))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped(tmp_path, capsys):
    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", Kill(3, 1))
    last = tmp_path / "killed/checkpoint-00000003.npz"
    last.write_bytes(last.read_bytes()[:-100])
    assert all(map(np.array_equal, whole, fit(tmp_path / "killed")))
    assert "damaged" in capsys.readouterr().err


def test_another_network_is_refused(tmp_path):
    fit(tmp_path)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(UserError, match="another network"):
        other.fit(Shuffling(), verbose=0, callbacks=[sbp.Checkpoint(tmp_path)])


def test_a_network_that_is_not_built_is_refused_until_it_has_been_called(tmp_path):
    made, data = keras.Sequential([layers.Dense(3, "relu"), layers.Dense(1)]), Shuffling()
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match="give its first layer an Input, or call it on data once"):
        made.fit(data, verbose=0, callbacks=[sbp.Checkpoint(tmp_path, data)])
    made(data.x)
    made.fit(data, epochs=2, verbose=0, callbacks=[sbp.Checkpoint(tmp_path, data)])
    assert checkpoint.latest(tmp_path)["epoch"] == 2


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        fit(tmp_path, Kill(2, 1))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}

    def full(path, fill, aside=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(UserError, match="No space left on device") as raised:
        fit(tmp_path)
    assert "\n" not in str(raised.value)
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}


def test_two_trainings_in_one_directory_are_refused(tmp_path):
    with checkpoint.lock_directory(str(tmp_path)), pytest.raises(UserError, match="another run"):
        fit(tmp_path)


class Epochs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(epoch)


@pytest.mark.slow
def test_an_interrupted_fit_leaves_later_ones_alone(tmp_path):
    made, data, epochs = model(), Shuffling(), Epochs()
    made.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[sbp.Checkpoint(tmp_path, data)])
    with pytest.raises(Killed):
        made.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=[sbp.Checkpoint(tmp_path, data), Kill(3, 1)])
    made.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[epochs])
    assert epochs.seen == [0, 1]


class Break(keras.callbacks.Callback):
    """Makes a weight NaN, as a learning rate that is too high does."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 10:  # in the third epoch of four batches
            self.model.layers[-1].bias.assign([np.nan])


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    made, data = model(), Shuffling()
    with pytest.warns(UserWarning, match="not finite"):
        made.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=[sbp.Checkpoint(tmp_path, data), Break()])
    assert checkpoint.latest(tmp_path)["epoch"] == 2
