"""Losses of one name, told apart by what they compute with."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_sbp as sbp
from keras_sbp.utils.tool import examples, fingerprint, tasks
from tests.support import scripts
from tests.support.digits import dense, digits

QUICK = {"epochs": 1, "finetune_epochs": 0, "verbose": 0}


class Power(keras.losses.Loss):
    def __init__(self, power):
        super().__init__()
        self.power = power

    def call(self, y, outputs):
        return ops.mean(ops.abs(y - outputs) ** self.power, -1)


class Cube(Power):
    def call(self, y, outputs):
        return ops.mean(ops.abs(y - outputs) ** (1 + self.power), -1)


def power(number):
    return lambda y, outputs: ops.mean(ops.abs(y - outputs) ** number, -1)


def partial(number):
    return functools.partial(lambda y, outputs, number: ops.mean(ops.abs(y - outputs) ** number), number=number)


def default(number):
    return lambda y, outputs, number=number: ops.mean(ops.abs(y - outputs) ** number)


def array(number):
    return power(np.float32([1, number]))


def inner(number):
    """The function that it calls differs."""
    error = power(number)
    return lambda y, outputs: 2 * error(y, outputs)


def teacher(number):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")])
    network.layers[0].bias.assign([0.0, number])
    return lambda y, outputs: ops.mean(ops.abs(network(y) - outputs))


@pytest.mark.parametrize("make", [Power, power, partial, default, array, inner, teacher])
def test_losses_that_compute_the_same_have_one_fingerprint(make):
    assert fingerprint.of(make(2)) == fingerprint.of(make(2)) != fingerprint.of(make(3))


def test_losses_of_other_code_differ():
    losses = [Power(2), Cube(2), power(2), lambda y, outputs: y - outputs, lambda y, outputs: outputs - y]
    assert len({fingerprint.of(loss) for loss in losses}) == len(losses)


def test_a_function_that_calls_itself_has_a_fingerprint():
    def falling(y, outputs, times=3):
        return ops.abs(y - outputs) if times == 0 else falling(y, outputs / 2, times - 1)

    assert fingerprint.of(falling) == fingerprint.of(falling)


@pytest.mark.slow
def test_fingerprints_are_the_same_in_another_process():
    """Where addresses, and the order of sets, are others."""
    done = scripts.run("from tests import test_tool_fingerprint as tests; print(tests.mixed())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == mixed()


def mixed():
    losses = [make(2) for make in (Power, power, partial, default, array, inner, teacher)]
    names = lambda y, outputs: ops.mean(outputs) if "mean" in {"mean", "sum", "max", "min"} else power  # noqa: E731
    return "-".join(map(fingerprint.of, [*losses, names]))


def test_a_network_is_trained_by_the_loss_with_its_arguments():
    x, y = np.zeros((8, 64), np.float32), np.full((8, 10), 3.0)
    model = dense()
    outputs = keras.ops.convert_to_numpy(model(x))
    task = tasks.of(model, examples.part((x, y), "data"), keras.losses.Huber(delta=0.5))
    task.compile(model, keras.optimizers.SGD())
    expected = np.mean(0.5 * np.abs(y - outputs) - 0.5**2 / 2)  # all are more than delta away
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_the_settings_of_a_run_tell_lambdas_apart():
    part = examples.part((np.zeros((8, 64)), np.zeros((8, 10))), "data")
    first, same, other = (tasks.of(dense(), part, power(number)).loss_settings for number in (2, 2, 4))
    assert first == same != other


@pytest.mark.slow
@pytest.mark.usefixtures("no_latency")
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_directory_is_of_one_loss_even_if_another_has_its_name(tmp_path):
    x, _ = digits()
    data = x[:200], x[:200, :10]
    sbp.prune(dense(), data, 2, directory=tmp_path, loss=power(2), **QUICK)
    with pytest.raises(ValueError, match="holds a run with another loss"):
        sbp.prune(dense(), data, 2, directory=tmp_path, loss=power(4), **QUICK)
