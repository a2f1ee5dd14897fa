"""Batch normalization, fused, and back in a shrunk network."""

import keras
import numpy as np
import pytest
from keras import layers
from keras.layers import Conv2D, Dense

from keras_sbp.layers.batch_normalization import BatchNormalization
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


def test_inserted_batch_norm_has_the_statistics_of_its_inputs():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, bias_initializer="normal")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    given = np.random.default_rng(0).normal(size=(300, 8, 8, 3)).astype(np.float32)
    again = pruning.insert_batch_norm(model, given)
    (norm,) = [layer for layer in again.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = keras.Model(again.inputs, norm.input)(given)
    np.testing.assert_allclose(norm.moving_mean, np.mean(before, (0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, np.var(before, (0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("settings", [{"axis": 1}, {"scale": False}, {"center": False}, {"synchronized": True}])
def test_fused_batch_normalisation_refuses_what_its_kernel_has_not(settings):
    with pytest.raises(ValueError, match=r"keras\.layers\.BatchNormalization"):
        BatchNormalization(**settings).build((None, 6, 6, 6))
