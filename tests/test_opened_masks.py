"""Masks that come with the outputs of somebody's own layers, which are opened: the layers after them read the masks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_sbp as sbp
from keras_sbp import keras_private
from keras_sbp.utils.pruning import fit
from keras_sbp.utils.pruning.rules import masks

WORDS = np.array([[1, 2, 3, 0, 0, 0, 0], [4, 5, 6, 7, 8, 0, 0]])


class FeedForward(layers.Layer):
    """Passes on the mask of what it reads."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.wide, self.narrow = layers.Dense(12, activation="relu"), layers.Dense(8)
        self.norm, self.supports_masking = layers.LayerNormalization(), True

    def call(self, inputs):
        return self.norm(inputs + self.narrow(self.wide(inputs)))


class Positions(layers.Layer):
    """Makes a mask of its own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.words, self.positions = layers.Embedding(50, 8), layers.Embedding(7, 8)

    def call(self, inputs):
        return self.words(inputs) + self.positions(ops.arange(7))

    def compute_mask(self, inputs, previous_mask=None):
        return ops.not_equal(inputs, 0)


def attended(h):
    return layers.MultiHeadAttention(2, 4)(h, h)


@pytest.mark.parametrize(
    "before",
    [
        lambda words: FeedForward()(layers.Embedding(50, 8, mask_zero=True)(words)),
        lambda words: Positions()(words),
        lambda words: FeedForward()(Positions()(words)),
    ],
)
@pytest.mark.parametrize(
    "after",
    [
        lambda h: layers.Attention()([h, h]),
        attended,
        lambda h: layers.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True),
        lambda h: attended(layers.Add()([h, layers.Dense(8)(h)])),
        lambda h: layers.LSTM(4)(h),
        lambda h: layers.GlobalAveragePooling1D()(h),
    ],
)
def test_masks_of_opened_layers_reach_what_follows(before, after):
    words = keras.Input((7,), dtype="int32")
    model = keras.Model(words, layers.Dense(3)(after(before(words))))
    expected = ops.convert_to_numpy(model(WORDS))
    noisy = sbp.insert(model)
    np.testing.assert_allclose(noisy(WORDS), expected, atol=1e-5)
    for layer in fit.noise_layers(noisy):
        layer.log_sigma.assign(np.where(np.arange(layer.log_sigma.shape[0]) % 2, 4.0, -5.0))
    smaller = sbp.shrink(noisy)
    assert sbp.multiply_adds(smaller) < sbp.multiply_adds(model)
    np.testing.assert_allclose(smaller(WORDS), noisy(WORDS), atol=1e-5)


def test_masks_of_several_inputs_as_arguments():
    words = keras.Input((4,), dtype="int32")
    x, y = layers.Embedding(5, 3, mask_zero=True)(words), layers.Embedding(5, 3)(words)
    attention = layers.MultiHeadAttention(1, 2)
    attention(x, y)
    (node,) = keras_private.calls(attention)
    assert list(masks.implicit(node, [x, y])) == ["attention_mask"]
    keras_private.set_mask(y, keras_private.mask_of(x))
    found = masks.implicit(node, [x, y])
    assert found["value_mask"] is keras_private.mask_of(x) and found["attention_mask"].shape == (None, 4, 1)
    assert masks.implicit(keras_private.producer(x), [words]) == {}
