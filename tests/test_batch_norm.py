"""Batch normalization back in a shrunk network."""

import keras
import numpy as np
from keras import layers
from keras.layers import Conv2D, Dense

from keras_sbp.utils import pruning
from tests.support.networks import difference, draw_weights, images


def test_inserted_batch_norm_is_the_identity_and_folds_again():
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(Conv2D(6, 3, padding="same", name="first")(inputs))
    x = layers.Add()([x, Conv2D(6, 3, padding="same", name="second")(x)])
    model = keras.Model(inputs, Dense(4)(layers.GlobalAveragePooling2D()(x)))
    draw_weights(model, rng)
    given = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    put_back = pruning.insert_batch_norm(model, given)
    expected = model(given)
    np.testing.assert_allclose(put_back(given, training=False), expected, atol=1e-4)
    # In training, by the statistics of the same images: those that were put in.
    np.testing.assert_allclose(put_back(given, training=True), expected, atol=2e-3)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in put_back.layers) == 2
    again = pruning.shrink(put_back)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in again.layers)
    np.testing.assert_allclose(again(given), expected, atol=1e-4)


def test_shared_convolutions_get_no_batch_norm():
    inputs, twice = keras.Input((8, 8, 3)), Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(inputs, Conv2D(4, 3, name="last")(twice(layers.ReLU()(twice(inputs)))))
    put_back = pruning.insert_batch_norm(draw_weights(model, np.random.default_rng(0)), images(model))
    assert difference(model, put_back) <= 1e-4
    norms = [layer.name for layer in put_back.layers if isinstance(layer, layers.BatchNormalization)]
    assert norms == ["last_norm"]
