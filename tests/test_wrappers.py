"""Layers around other layers: networks of what is in them compute the same, and are pruned."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import graph
from tests.stress import keras_applications
from tests.support.halves import half, kill
from tests.support.slow import cases

STEPS = (7, 4)


def spectral():
    inputs = keras.Input((8, 8, 3))
    x = L.SpectralNormalization(L.Conv2D(8, 3, activation="relu"))(inputs)
    x = L.SpectralNormalization(L.Dense(6, activation="relu"))(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(3)(x))


def several_cells():
    words = keras.Input((7,), dtype="int32")
    x = L.Embedding(5, 6, mask_zero=True)(words)
    x = L.RNN([L.LSTMCell(6, dropout=0.1), L.LSTMCell(5)], return_sequences=True)(x)
    x = L.TimeDistributed(L.Dense(6, "tanh"))(x)
    return keras.Model(words, L.Dense(3)(L.RNN([L.GRUCell(6), L.SimpleRNNCell(4), L.GRUCell(5)])(x)))


def several_cells_backwards():
    inputs = keras.Input(STEPS)
    layer = L.RNN([L.SimpleRNNCell(6), L.GRUCell(5)], go_backwards=True, return_sequences=True)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(layer(inputs))))


def states_of_outputs():
    """A state that is the last output, and one that nothing reads."""
    inputs = keras.Input(STEPS)
    x, first = L.GRU(6, return_sequences=True, return_state=True)(inputs)
    last, second, _ = L.LSTM(6, return_state=True)(x)
    x, third, _ = L.LSTM(6, return_sequences=True, return_state=True, go_backwards=True)(x)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([first, second, third, last, L.Flatten()(x)])))


def steps_of_images():
    inputs = keras.Input((5, 8, 8, 3))
    x = L.TimeDistributed(L.Conv2D(6, 3, activation="relu"))(inputs)
    return keras.Model(inputs, L.Dense(3)(L.LSTM(4)(L.TimeDistributed(L.GlobalMaxPooling2D())(x))))


NETWORKS = [spectral, several_cells, several_cells_backwards, states_of_outputs, steps_of_images]


@pytest.mark.parametrize("network", cases(NETWORKS, slow={several_cells}))
def test_outputs_stay_the_same(network):
    model, rng = network(), np.random.default_rng(0)
    keras_applications.randomize(model, rng)
    assert list(pruning.unprunable(model)) == [model.layers[-1].name]
    given = keras_applications.examples(model, rng, 8)
    given = given % 5 if given.dtype == int else given  # words, some of which are padding
    noisy = pruning.insert(model)
    assert keras_applications.difference(model, noisy, given) <= 1e-6
    kill(noisy, half(noisy, rng))
    smaller = pruning.shrink(noisy)
    assert keras_applications.difference(noisy, smaller, given) <= 1e-5
    assert keras_applications.counted(smaller) < keras_applications.counted(model) / 2


@pytest.mark.parametrize("depth", [1, 2])
def test_names_stay_those_of_the_wrappers_where_they_are_called_again(depth):
    inputs, shared = keras.Input(STEPS), L.TimeDistributed(L.Dense(4, name="same"), name="shared")
    x = L.TimeDistributed(L.Dense(4, name="same"), name="once")(inputs)
    for _ in range(depth):
        x = shared(x)
    model = keras.Model(inputs, L.Dense(3, name="last")(L.Flatten()(x)))
    flat = graph.flatten_nested(model)
    assert {"once", "shared", "last"} <= {layer.name for layer in flat.layers} and len(flat.weights) == 6
    given = np.random.default_rng(0).normal(size=(2, *STEPS)).astype(np.float32)
    assert keras_applications.difference(model, flat, given) <= 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        L.TimeDistributed(L.BatchNormalization()),
        L.SpectralNormalization(L.Dense(4)),
        L.RNN([L.LSTMCell(6), L.LSTMCell(4)], stateful=True, return_sequences=True),
    ],
)
def test_what_would_train_otherwise_stays_as_it_is(layer):
    inputs = keras.Input(batch_shape=(2, *STEPS))
    settings = {"training": True} if isinstance(layer, L.SpectralNormalization) else {}
    model = keras.Model(inputs, L.Dense(3)(layer(inputs, **settings)))
    assert layer.name in pruning.unprunable(model) and graph.flatten_nested(model) is model
