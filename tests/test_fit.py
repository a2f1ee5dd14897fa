"""Noise under compile and fit: its KL divergence in the losses, its own optimizer, the logs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from tests.stress import readme_example
from tests.support import scripts

# KL divergence of a unit at mu = 0, log sigma = -5: half a normal distribution, far from the lower bound.
UNIT = np.log(20) + 5 + np.log(2) - np.log(2 * np.pi * np.e) / 2


def network(**settings):
    """Nine units of noise, four of which are used twice."""
    inputs, noise = keras.Input((4,)), SBP(name="both", **settings)
    x = noise(inputs)
    x = noise(keras.layers.Dense(4, activation="relu", name="dense")(x))
    x = SBP(name="last", **settings)(keras.layers.Dense(5, activation="relu", name="wide")(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def example_data(count=256):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_losses_have_the_weighted_kl_divergence_once_per_layer():
    model = network(kl_weight=0.01)
    model(np.zeros((1, 4)))
    assert sorted(map(float, model.losses)) == pytest.approx([0.01 * 4 * UNIT, 0.01 * 5 * UNIT], rel=1e-5)
    assert network().losses == []


def test_fit_minimizes_the_bound_divided_by_the_number_of_examples():
    """The loss of an epoch without learning is the mean cross entropy plus the weighted KL divergence."""
    x, y = example_data()
    model = network(kl_weight=1 / 256)
    for layer in fit.noise_layers(model):
        layer.log_sigma.assign(np.full(layer.mu.shape, -20.0))
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    kl = sum(float(tf.reduce_sum(layer.kl_divergence())) for layer in fit.noise_layers(model))
    logits = model(x, training=True).numpy()
    expected = np.log(np.exp(logits).sum(1)).mean() - logits[np.arange(256), y].mean() + kl / 256
    assert model.fit(x, y, 64, verbose=0).history["loss"] == pytest.approx([expected], rel=1e-4)
    gradient = value = None
    with tf.GradientTape() as tape:
        value = tf.add_n(model.losses)
    gradient = tape.gradient(value, [layer.log_sigma.value for layer in fit.noise_layers(model)])
    # The KL divergence of narrow noise falls by 1 when log sigma rises by 1.
    for found in gradient:
        np.testing.assert_allclose(found, -1 / 256, rtol=1e-4)


def test_shared_noise_has_one_sample_per_step():
    inputs, noise = keras.Input((4,)), SBP(log_sigma=-1.0)
    model = keras.Model(inputs, [noise(inputs), noise(inputs)])
    x = np.ones((2, 4), np.float32)
    step = tf.function(lambda: model(x, training=True))
    (one, other), (third, _) = step(), step()
    np.testing.assert_array_equal(one, other)
    assert np.all(one.numpy() != third.numpy())


def test_weights_and_noise_have_separate_optimizers():
    x, y = example_data()
    model = network(kl_weight=1 / 256)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.compile(fit.optimizer(keras.optimizers.SGD(0.0), keras.optimizers.SGD(1.0)), LOSS)
    model.fit(x, y, 64, verbose=0)
    for variable in model.trainable_variables:
        moved = np.any(variable.numpy() != before[variable.path])
        assert moved == (variable.name in ("mu", "log_sigma")), variable.path


class Gauss(keras.layers.Layer):
    """Parameters of the names of the noise's."""

    def build(self, shape):
        self.mu = self.add_weight(name="mu", shape=shape[-1:])
        self.log_sigma = self.add_weight(name="log_sigma", shape=shape[-1:])

    def call(self, x):
        return (x - self.mu) * keras.ops.exp(-self.log_sigma)


def test_parameters_of_other_layers_do_not_get_the_optimizer_of_the_noise():
    x, y = example_data()
    inputs, gauss = keras.Input((4,)), Gauss()
    model = keras.Model(inputs, keras.layers.Dense(3)(SBP(name="noise")(gauss(inputs))))
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.compile(fit.optimizer(keras.optimizers.SGD(0.0), keras.optimizers.SGD(1.0)), LOSS)
    model.fit(x, y, 64, verbose=0)
    moved = {v.path for v in model.trainable_variables if np.any(v.numpy() != before[v.path])}
    assert moved == {"noise/mu", "noise/log_sigma"}


# Of 51 MACs, 39 are left without one of the 4 units of "both", and 44 without one of the 5 of "last".
COSTS = {"both": 12 * 9 / 83, "last": 7 * 9 / 83}


def test_kl_weight_is_annealed_from_a_scale_that_depends_on_cost():
    model = network(kl_weight=0.5)
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    callback = fit.AnnealKL(price=3.0)
    callback.set_model(model)
    callback.set_params({"epochs": 8})
    callback.on_train_begin()
    for epoch, price in ((0, 3.0), (2, 1.5), (4, 0.0), (7, 0.0)):
        callback.on_epoch_begin(epoch)
        found = {layer.name: float(layer.kl_weight.value) for layer in fit.noise_layers(model)}
        assert found == pytest.approx({name: 0.5 * (1 + price * cost) for name, cost in COSTS.items()})


def test_losses_follow_the_annealed_kl_weight():
    x, y = example_data()
    model = network(kl_weight=1.0)
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    first, second = model.fit(x, y, 256, 2, verbose=0, callbacks=[fit.AnnealKL(price=3.0)]).history["loss"]
    noise = 1e-2  # theta is random
    assert first - second == pytest.approx(3 * (4 * COSTS["both"] + 5 * COSTS["last"]) * UNIT, rel=noise)


def test_logs_have_live_units_and_macs():
    x, y = example_data()
    model = network(kl_weight=1 / 256)
    last = model.get_layer("last")
    last.mu.assign([-20.0, 0, 0, -20, 0])
    last.log_sigma.assign([5.0, -5, -5, 5, -5])
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    history = model.fit(x, y, 64, verbose=0, callbacks=[fit.LogLiveUnits()]).history
    assert history["units/both"] == [4] and history["units/last"] == [3]
    assert history["multiply_adds"] == [4 * 4 + 4 * 3 + 3 * 3] == [counting.multiply_adds(pruning.shrink(model))]
    dead = float(truncated_log_normal.kl_divergence(-20.0, 5.0))
    assert history["kl_divergence"] == pytest.approx([7 * UNIT + 2 * dead], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_training_in_low_precision_and_from_a_file(policy, tmp_path):
    x, y = example_data()
    keras.config.set_dtype_policy(policy)
    try:
        model = network(kl_weight=1 / 256)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(fit.optimizer(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-1)), LOSS)
    history = model.fit(x, y, 64, 5, verbose=0).history["loss"]
    assert history[-1] < history[0] and all(loss.dtype == "float32" for loss in model.losses)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [float(loss) for loss in again.losses] == pytest.approx([float(loss) for loss in model.losses])
    again.fit(x, y, 64, verbose=0)


TOWERS = """
import sys
import keras, numpy as np, tensorflow as tf
from tests.test_fit import LOSS, example_data, network
from keras_sbp.utils.pruning import fit
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if sys.argv[1] == "2" else tf.distribute.get_strategy()
x, y = example_data()
with strategy.scope():
    keras.utils.set_random_seed(0)
    model = network(kl_weight=1 / 256)
    for layer in fit.noise_layers(model):
        layer.log_sigma.assign(np.full(layer.mu.shape, -19.0))
    model.compile(fit.optimizer(keras.optimizers.SGD(0.1), keras.optimizers.SGD(1.0)), LOSS)
history = model.fit(x, y, 128, 3, verbose=0, shuffle=False, callbacks=[fit.LogLiveUnits()]).history
print(*history["loss"], *history["kl_divergence"], *history["units/both"])
"""


@pytest.mark.slow
def test_two_towers_train_like_one():
    """With narrow noise, as each tower has its own."""
    one, two = (scripts.run(TOWERS, count, before=[("two_cpus",)]) for count in "12")
    assert one.returncode == two.returncode == 0, two.stderr
    found = [[float(number) for number in done.stdout.split()[-9:]] for done in (one, two)]
    np.testing.assert_allclose(*found, rtol=1e-4)


@pytest.mark.slow
def test_readme_example_prunes_a_residual_network():
    names = readme_example.run(0)
    smaller, model = names["smaller"], names["model"]
    assert all(type(op).__module__.startswith("keras.") for op in smaller.operations)
    assert counting.multiply_adds(model) > 2 * counting.multiply_adds(smaller)
    assert any(isinstance(layer, keras.layers.Add) for layer in smaller.layers)


def test_annealing_ends_as_inserted_however_the_fit_ends():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3)(inputs)))
    noisy = pruning.insert(model, kl_weight=0.5)
    noisy.compile("sgd", "mse")
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(noisy, "stop_training", True))
    noisy.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=10, verbose=0, callbacks=[fit.AnnealKL(), stop])
    (layer,) = fit.noise_layers(noisy)
    assert np.asarray(layer.kl_weight) == pytest.approx(0.5)
    with pytest.warns(UserWarning, match="one epoch"):
        noisy.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=1, verbose=0, callbacks=[fit.AnnealKL()])


class Noisy(layers.Layer):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense, self.noise = layers.Dense(4), SBP(kl_weight=1e-3)

    def call(self, x, training=False):
        return self.noise(self.dense(x), training=training)


def same_names():
    inputs = keras.Input((4,))
    inner = [keras.Sequential([keras.Input((4,)), layers.Dense(4), SBP(1e-3, name="noise")]) for _ in range(2)]
    return keras.Model(inputs, layers.Dense(3)(inner[1](inner[0](inputs))))


def inside_of_a_layer():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(SBP(1e-3)(layers.Dense(4)(Noisy()(inputs)))))


@pytest.mark.parametrize("callback", [fit.LogLiveUnits, fit.AnnealKL])
@pytest.mark.parametrize("build", [same_names, inside_of_a_layer])
def test_noise_that_cannot_be_told_by_its_name_is_refused(build, callback):
    model = build()
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="noise in layers of your own or of the same name"):
        model.fit(*example_data(), verbose=0, callbacks=[callback()])
