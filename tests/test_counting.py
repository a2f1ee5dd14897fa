"""Counting: the paper's MACs and FLOPs speedups, the MACs of a unit, and of layers of all kinds, counted by hand."""

import tracemalloc
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets import lenet5, lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from tests.stress import keras_applications
from tests.test_odd_networks import IMAGES, network

LENET5, LENET_FC = 2_293_000, 545_000


def shrunk(model, live):
    """The smaller network of a model in which these units are live, {noise layer's name: indices}."""
    for name, indices in live.items():
        layer = model.get_layer(name)
        dead = ~np.isin(np.arange(layer.mu.shape[0]), indices)
        layer.mu.assign(np.where(dead, -20.0, 0.0))
        layer.log_sigma.assign(np.where(dead, 5.0, -5.0))
    return pruning.shrink(model)


@pytest.mark.parametrize("unit", [layers.Identity, SBP])
def test_macs_of_the_originals(unit):
    assert counting.multiply_adds(lenet5.lenet5(unit)) == LENET5
    assert counting.multiply_adds(lenet_fc.lenet_fc(unit)) == LENET_FC


def test_macs_count_positions():
    middle = [layers.Conv2D(4, 3, 2, padding="same"), layers.Conv2D(5, (1, 3)), layers.Dense(6), layers.Flatten()]
    model = keras.Sequential([keras.Input((9, 8, 3)), *middle, layers.Dense(2)])
    assert counting.multiply_adds(model) == 5 * 4 * 9 * 3 * 4 + 5 * 2 * 3 * 4 * 5 + 5 * 2 * 5 * 6 + 5 * 2 * 6 * 2
    assert list(counting.kernels(model).values()) == [(3, 3, 3, 4), (1, 3, 4, 5), (5, 6), (60, 2)]


@pytest.mark.parametrize("units, factor", [((245, 160, 55), 11.23), ((537, 217, 130), 3.73), ((434, 174, 78), 6.06)])
def test_paper_speedups_of_lenet_fc(units, factor):
    names = ("pixels_unit", "dense1_unit", "dense2_unit")
    smaller = shrunk(lenet_fc.lenet_fc(SBP), {name: np.arange(count) for name, count in zip(names, units)})
    assert lenet_fc.units(counting.kernels(smaller)) == [*units, 10]
    assert round(LENET_FC / counting.multiply_adds(smaller), 2) == factor


@pytest.mark.parametrize("units, factor", [((3, 18, 284, 283), 10.78), ((17, 32, 329, 75), 2.01)])
def test_paper_speedups_of_lenet5(units, factor):
    conv1, conv2, features, dense1 = units
    # Position by position, so that every live channel is among the features.
    of_live_channels = np.flatnonzero(np.arange(800) % 50 < conv2)[:features]
    live = {"conv1_unit": np.arange(conv1), "conv2_unit": np.arange(conv2), "dense1_unit": np.arange(dense1)}
    smaller = shrunk(lenet5.lenet5(SBP), {**live, "features_unit": of_live_channels})
    assert lenet5.units(counting.kernels(smaller)) == list(units)
    assert round(LENET5 / counting.multiply_adds(smaller), 2) == factor


def test_paper_speedup_of_lenet5_with_ssl():
    """3 - 12 - 800 - 500: dense1 has all its inputs there, though 12 channels have 192."""
    convolutions = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(3, 5), layers.MaxPooling2D(), layers.Conv2D(12, 5)]
    )
    dense = keras.Sequential([keras.Input((800,)), layers.Dense(500), layers.Dense(10)])
    assert round(LENET5 / (counting.multiply_adds(convolutions) + counting.multiply_adds(dense)), 2) == 4.53


def test_units_of_a_constant_network_are_zero():
    smaller = shrunk(lenet5.lenet5(SBP), {"conv2_unit": []})
    assert lenet5.units(counting.kernels(smaller)) == [0, 0, 0, 0]
    smaller = shrunk(lenet_fc.lenet_fc(SBP), {"dense1_unit": []})
    assert lenet_fc.units(counting.kernels(smaller)) == [0, 0, 0, 10]


@pytest.mark.parametrize(
    "model, costs",
    [
        (
            lenet5.lenet5,
            {
                "conv1_unit": 24 * 24 * 25 + 8 * 8 * 25 * 50,
                "conv2_unit": 8 * 8 * 25 * 20 + 16 * 500,
                "features_unit": 500,
                "dense1_unit": 800 + 10,
            },
        ),
        (lenet_fc.lenet_fc, {"pixels_unit": 500, "dense1_unit": 784 + 300, "dense2_unit": 500 + 10}),
    ],
)
def test_unit_costs_counted_by_hand(model, costs):
    noisy = model(SBP)
    assert counting.unit_costs(noisy) == costs
    units = {layer.name: layer.mu.shape[0] for layer in noisy.layers if layer.name in costs}
    mean = sum(units[name] * costs[name] for name in units) / sum(units.values())
    assert counting.relative_costs(noisy) == pytest.approx({name: costs[name] / mean for name in costs})


@pytest.mark.parametrize("log_sigma", [-5.0, 5.0])
def test_unit_costs_do_not_depend_on_dead_units_or_biases(log_sigma):
    first = layers.Conv2D(4, 3, padding="same", bias_initializer="ones")
    noise = SBP(name="noise", log_sigma=log_sigma)
    middle = [first, noise, layers.Conv2D(5, 3, padding="same"), layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *middle, layers.Dense(2)])
    assert counting.unit_costs(model) == {"noise": 64 * 9 * 3 + 64 * 9 * 5}


def test_unit_costs_do_not_depend_on_zero_weights():
    inputs = keras.Input((5,))
    x = layers.Dense(6, activation="relu", name="b")(layers.Dense(8, activation="relu", name="a")(inputs))
    noisy = pruning.insert(keras.Model(inputs, layers.Dense(3, kernel_initializer="zeros")(x)))
    kernel = noisy.get_layer("a").kernel
    kernel.assign(kernel * ([0] + [1] * 7))
    assert counting.unit_costs(noisy) == {"a_noise": 5 + 6, "b_noise": 8 + 3}
    assert not np.any(kernel[:, 0]) and not np.any(noisy.layers[-1].kernel), "they stay"


def test_noise_in_a_nested_network_is_found_and_counted():
    noisy = pruning.insert(network("one slope for all"), kl_weight=1e-3)
    model = keras.Sequential([keras.Input(IMAGES), noisy])
    layers = [layer for layer in noisy.layers if isinstance(layer, SBP)]
    assert fit.noise_layers(model) == layers and counting.unit_costs(model) == counting.unit_costs(noisy)
    callback = fit.LogLiveUnits()
    callback.set_model(model)
    callback.on_epoch_end(0, logs := {})
    assert logs["multiply_adds"] == counting.multiply_adds(noisy) and logs["kl_divergence"] > 0


# TensorFlow's graph of the others has products that `traced_multiply_adds` does not know.
TRACED = (
    "U-Net",
    "squeeze and excitation",
    "two inputs, two outputs",
    "nested",
    "three dimensions",
    "pre-activation",
)


@pytest.mark.parametrize("name", TRACED)
def test_macs_match_the_traced_tensorflow_graph(name):
    model, rng = keras_applications.OTHERS[name](), np.random.default_rng(0)
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 0.4, rng)
    for each in (model, noisy, pruning.shrink(noisy)):
        assert counting.multiply_adds(each) == keras_applications.traced_multiply_adds(each)


def test_macs_of_recurrent_layers_and_attention():
    # Dense at 12 steps; four gates of an LSTM with 16 and 8 inputs, three of a GRU with 8 and 6, at 12 steps each.
    recurrent = 12 * 5 * 16 + 12 * 4 * 8 * (16 + 8) + 12 * 3 * 6 * (8 + 6) + 6 * 10 + 10 * 3
    assert counting.multiply_adds(keras_applications.recurrent()) == recurrent
    # Queries, keys, values and outputs of 2 heads of 8; 12 by 12 products of queries and keys, and of those and values.
    attention = 4 * 12 * 16 * 2 * 8 + 2 * 2 * 12 * 12 * 8
    assert counting.multiply_adds(keras_applications.transformer()) == attention + 2 * 12 * 16 * 32 + 16 * 3


def test_macs_of_attention_with_any_argument_style():
    query, value = keras.Input((4, 6)), keras.Input((5, 8))
    mask = keras.Input((4, 5))
    attention = layers.MultiHeadAttention(2, 3)
    by_hand = 2 * 3 * (4 * 6 + 5 * 8 + 5 * 8 + 4 * 6) + 2 * 2 * 4 * 5 * 3
    for model in (
        keras.Model([query, value], attention(query=query, key=value, value=value)),
        keras.Model([query, value, mask], attention(query, value, attention_mask=mask)),
    ):
        assert counting.multiply_adds(model) == by_hand


def test_macs_of_attention_along_one_axis():
    """24 positions: four projections from or to 8 units, and each attends to 6."""
    inputs = keras.Input((4, 6, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4, attention_axes=(2,))(inputs, inputs))
    assert counting.multiply_adds(model) == 4 * 24 * 8 * 2 * 4 + 2 * 24 * 6 * (4 + 4)


IMAGE, SEQUENCE, FILM = (6, 7, 3), (12, 5), (4, 6, 7, 3)
LSTM = 12 * 4 * 6 * (5 + 6)  # a sequence through an LSTM of 6 units


@keras.saving.register_keras_serializable(package="test_counting")
class Block(layers.Layer):
    """A composite layer: two layers, and products of its own weights."""

    def build(self, shape):
        self.first, self.second = layers.Conv2D(4, 3), layers.Dense(5)
        self.first.build(shape)
        self.second.build((None, None, None, 4))
        self.kernel = self.add_weight(shape=(5, 2))

    def call(self, x):
        return ops.matmul(self.second(self.first(x)), self.kernel)

    def compute_output_shape(self, shape):
        return self.first.compute_output_shape(shape)[:-1] + (2,)


@pytest.mark.parametrize(
    "layer, shape, by_hand",
    [
        (layers.Bidirectional(layers.LSTM(6)), SEQUENCE, 2 * LSTM),
        (layers.Bidirectional(layers.LSTM(6), backward_layer=layers.GRU(4, go_backwards=True), merge_mode="concat"),
         SEQUENCE, LSTM + 12 * 3 * 4 * (5 + 4)),
        (layers.RNN([layers.LSTMCell(6), layers.SimpleRNNCell(3)]), SEQUENCE, LSTM + 12 * 3 * (6 + 3)),
        (layers.RNN(layers.GRUCell(6, reset_after=False), unroll=True), SEQUENCE, 12 * 3 * 6 * (5 + 6)),
        (layers.ConvLSTM1D(2, 3, return_sequences=True), SEQUENCE[:1] + (7, 5), 12 * 5 * 4 * 2 * (3 * 5 + 3 * 2)),
        (layers.ConvLSTM2D(2, 3, padding="same"), FILM, 4 * 6 * 7 * 4 * 2 * 9 * (3 + 2)),
        (layers.TimeDistributed(layers.Dense(3)), SEQUENCE, 12 * 5 * 3),
        (layers.TimeDistributed(layers.Conv2D(2, 3)), FILM, 4 * 4 * 5 * 9 * 3 * 2),
        (layers.TimeDistributed(Block()), FILM, 4 * 4 * 5 * (27 * 4 + 4 * 5 + 5 * 2)),
        (Block(), IMAGE, 4 * 5 * (27 * 4 + 4 * 5 + 5 * 2)),
        (Block(trainable=False), IMAGE, 4 * 5 * (27 * 4 + 4 * 5 + 5 * 2)),
        (layers.Conv2D(2, 3, data_format="channels_first"), (3, 6, 7), 4 * 5 * 27 * 2),
        (layers.EinsumDense("abc,cd->abd", output_shape=(12, 3)), SEQUENCE, 12 * 5 * 3),
    ],
)  # fmt: skip
def test_macs_of_layers_without_a_rule_are_traced(layer, shape, by_hand):
    inputs = keras.Input(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counting.multiply_adds(keras.Model(inputs, layer(inputs))) == by_hand


@pytest.mark.parametrize("layer, by_hand", [(layers.Attention(), 4 * 5 * 6 * 2), (layers.Dot(2), 4 * 5 * 6)])
def test_macs_of_products_without_weights(layer, by_hand):
    first, second = keras.Input((4, 6)), keras.Input((5, 6))
    assert counting.multiply_adds(keras.Model([first, second], layer([first, second]))) == by_hand


class Loop(layers.Layer):
    """As often as its input says, so that nobody knows how often."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, x):
        turns = ops.cast(ops.max(x), "int32")
        return ops.fori_loop(0, turns, lambda _, value: ops.matmul(value, self.kernel), x)


def test_uncounted_layers_are_listed():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3)(Loop(trainable=False)(inputs)))
    with pytest.warns(UserWarning, match="Loop"):
        assert counting.multiply_adds(model) == 5 * 3
    with pytest.warns(UserWarning, match="any size"):
        counting.multiply_adds(keras_applications.u_net(None))


def test_macs_of_attention_of_keras_ops():
    inputs = keras.Input((6, 2, 8))
    model = keras.Model(inputs, ops.dot_product_attention(inputs, inputs, inputs))
    assert counting.multiply_adds(model) == 2 * 2 * 6 * 6 * 8


def test_costs_of_wide_layers_need_little_memory():
    """VGG-16's first dense layer reads 25,088 units: a matrix of them would be 5 GB."""
    inputs = keras.Input((4,))
    model = pruning.insert(keras.Model(inputs, layers.Dense(2)(layers.Dense(8_000, activation="relu")(inputs))), 1e-3)
    tracemalloc.start()
    (cost,) = counting.unit_costs(model).values()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cost == 4 + 2 and peak < 50e6
