"""Rules of users' own layers, and calls of layers that rules refuse."""

import doctest

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit, rules
from tests.stress import keras_applications
from tests.test_odd_networks import IMAGES, StandardizedConv2D, outputs_stay


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is forgotten."""
    monkeypatch.setattr(rules, "_REGISTERED", {})


@keras.saving.register_keras_serializable("tests")
class Snake(keras.Layer):
    """x + sin(x)^2 / a, with an a for each unit."""

    def build(self, input_shape):
        self.a = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs + ops.sin(inputs) ** 2 / self.a


class StandardizedRule(rules.Convolution):
    """The rule of StandardizedConv2D, whose kernel has the mean 0."""

    @property
    def kernel(self):
        return super().kernel - super().kernel.mean(axis=(0, 1, 2))


def network():
    inputs = keras.Input(IMAGES)
    x = Snake(name="snake")(StandardizedConv2D(8, 3, name="first")(inputs))
    x = Snake(name="again")(L.Conv2D(6, 3, name="second")(x))
    return keras.Model(inputs, L.Dense(3, name="last")(L.Flatten()(x)))


def test_example_in_the_docstring_of_register_runs():
    (example,) = [test for test in doctest.DocTestFinder().find(rules.register, "register") if test.examples]
    assert doctest.DocTestRunner().run(example).failed == 0


def test_layers_without_a_registered_rule_keep_their_units():
    why = pruning.unprunable(network())
    assert why["first"] == "cannot be opened: its layers compute something else at test time"
    assert why["second"].endswith("(TrueDivide)") and why["last"] == "output of the network"


def test_layers_with_a_registered_rule_are_pruned():
    rules.register(Snake, rules.Unitwise)
    rules.register(StandardizedConv2D, StandardizedRule)
    model = network()
    assert list(pruning.unprunable(model)) == ["last"]
    noisy = pruning.insert(model)
    assert [layer.name for layer in fit.noise_layers(noisy)] == ["first_noise", "second_noise"]
    outputs_stay(model)
    keras_applications.kill(noisy, 0.5, np.random.default_rng(0))
    smaller = pruning.shrink(noisy)
    live = {layer.name: np.count_nonzero(layer.multiplier()) for layer in fit.noise_layers(noisy)}
    assert counting.units(smaller) == {"first": live["first_noise"], "second": live["second_noise"], "last": 3}
    assert type(smaller.get_layer("first")) is L.Conv2D, "with the kernel that its rule says"
    assert smaller.get_layer("snake").a.shape[0] == live["first_noise"]


def test_rules_are_not_those_of_subclasses():
    class Other(Snake):
        """Not unitwise."""

        def call(self, inputs):
            return super().call(inputs) + ops.mean(inputs, axis=-1, keepdims=True)

    rules.register(Snake, rules.Unitwise)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, L.Dense(2)(Other(name="other")(L.Dense(4, name="first")(inputs))))
    assert pruning.unprunable(model)["first"].startswith("read by "), "what is in it"


@pytest.mark.parametrize("rule", [rules.Kernel, rules.Rule, Snake, "Unitwise"])
def test_error_for_something_that_is_not_a_complete_rule(rule):
    with pytest.raises(TypeError, match="is not a complete rule"):
        rules.register(Snake, rule)


class Signs(keras.Layer):
    """Fixed noise with dead units."""

    def multiplier(self):
        return np.float32([1, 0, 1, 0, 1, 1])

    def call(self, inputs):
        return inputs * self.multiplier()


def behind(layer, **settings):
    """A network in which dead units are the constant 1 where they enter a layer."""
    inputs = keras.Input((5,))
    x = L.Rescaling(1.0, 1.0)(Signs()(L.Dense(6, activation="relu")(inputs)))
    return keras.Model(inputs, L.Dense(3)(layer(x, **settings)))


@pytest.mark.parametrize("layer", [L.Dropout(0.5), L.GaussianDropout(0.5), L.GaussianNoise(1.0), L.AlphaDropout(0.5)])
def test_units_behind_noise_that_is_always_on_are_not_constant(layer):
    model, x = behind(layer, training=True), np.zeros((4000, 5), np.float32)
    smaller = pruning.shrink(model)
    for moment in (np.mean, np.var):
        np.testing.assert_allclose(moment(smaller(x), axis=0), moment(model(x), axis=0), atol=0.2)
    kernel = smaller.layers[-1].kernel
    assert kernel.shape == (6, 3), "the constants vary behind the noise"


def test_dead_units_behind_dropout_that_is_always_on_are_removed_if_they_are_zero():
    inputs = keras.Input((5,))
    x = L.Dropout(0.5)(Signs()(L.Dense(6, activation="relu")(inputs)), training=True)
    assert pruning.shrink(keras.Model(inputs, L.Dense(3)(x))).layers[-1].kernel.shape == (4, 3)


def test_batch_norm_that_always_trains_is_not_folded():
    inputs = keras.Input((5,))
    norm = L.BatchNormalization(name="norm")
    model = keras.Model(inputs, L.Dense(3)(norm(L.Dense(6, name="dense")(inputs), training=True)))
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    smaller = pruning.shrink(model)
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)
    assert pruning.unprunable(model)["norm"] == "called with training=True"


def test_dropout_with_a_noise_shape_of_its_units_keeps_them():
    inputs = keras.Input((8, 5))
    x = L.Dropout(0.5, noise_shape=(None, 1, 6), name="drop")(Signs()(L.Dense(6, activation="relu")(inputs)))
    model = keras.Model(inputs, L.Dense(3)(x))
    smaller = pruning.shrink(model)
    smaller.compile("sgd", "mse")
    smaller.fit(np.ones((4, 8, 5)), np.ones((4, 8, 3)), verbose=0)
    assert rules.reason(next(node for node in pruning.graph.nodes(model) if node.operation.name == "drop")) == (
        "noise_shape is (None, 1, 6)"
    )
