"""Noise inside of recurrent layers and attention, and in layers that were opened: fit, then without the dead units."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_sbp
from tests.support.halves import half, kill

X = np.random.default_rng(0).normal(size=(8, 5, 6)).astype("float32")
Y = np.arange(8) % 3


@keras.saving.register_keras_serializable("tests")
class Residual(L.Layer):
    """Attention with a scale that the layer holds itself."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.norm, self.attention, self.dropout = L.LayerNormalization(), L.MultiHeadAttention(2, 3), L.Dropout(0.3)

    def build(self, shape):
        self.norm.build(shape)
        self.attention.build(shape, shape)
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

    def call(self, x):
        y = self.norm(x)
        return x + self.scale * self.dropout(self.attention(y, y))


def recurrent():
    inputs = keras.Input(X.shape[1:])
    return keras.Model(inputs, L.Dense(3)(L.GRU(4)(inputs)))


def attention():
    inputs = keras.Input(X.shape[1:])
    x = Residual(name="residual")(L.Dense(8)(inputs))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.LayerNormalization()(x))))


@pytest.mark.slow
@pytest.mark.parametrize("network", [recurrent, attention])
def test_noise_inside_trains_and_dead_units_are_removed(network):
    model, rng = network(), np.random.default_rng(0)
    noisy = keras_sbp.insert(model, 1e-3)
    assert set(keras_sbp.unprunable(model)) <= {model.layers[-1].name, "residual_scale"}
    noisy.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = noisy.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[1] != losses[0]
    kill(noisy, half(noisy, rng))
    smaller = keras_sbp.shrink(noisy)
    np.testing.assert_allclose(smaller.predict(X, verbose=0), noisy.predict(X, verbose=0), atol=1e-5)
    assert smaller.count_params() < model.count_params()
