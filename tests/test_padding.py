"""Filters of zeros up to a multiple: what a network computes stays the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.layers import Conv2D, Dense, Flatten

from keras_sbp.utils import pruning
from tests.stress import keras_applications
from tests.support.networks import TOLERANCE, difference, draw_weights, random_network
from tests.test_odd_networks import IMAGES, StandardizedConv2D


@pytest.mark.parametrize("seed", range(6))
def test_padded_networks_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    smaller = pruning.shrink(draw_weights(random_network(rng), rng, zeros=0.15))
    wide = pruning.pad_filters(smaller, 8)
    assert difference(smaller, wide) <= TOLERANCE
    assert {layer.filters for layer in wide.layers if isinstance(layer, Conv2D)} <= {8}
    assert wide.output_shape == smaller.output_shape


def from_the_mean(x):
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("activation", ["relu", "softmax", "sparsemax", from_the_mean])
def test_layers_that_mix_units_are_not_padded(activation):
    """Zeros among the inputs of a softmax change all its outputs. The number of outputs stays the same."""
    inputs = keras.Input((8, 8, 3))
    x = Conv2D(5, 3, activation=activation, name="first")(inputs)
    x = layers.Softmax()(Conv2D(6, 3, groups=1, name="second")(x))
    grouped = Conv2D(6, 3, groups=2, name="grouped")(x)
    model = draw_weights(keras.Model(inputs, [Conv2D(3, 1, name="map")(x), grouped]), np.random.default_rng(0))
    wide = pruning.pad_filters(model, 4)
    assert difference(model, wide) <= TOLERANCE
    filters = {layer.name: layer.filters for layer in wide.layers if isinstance(layer, Conv2D)}
    assert filters == {"first": 8 if activation == "relu" else 5, "second": 8, "grouped": 6, "map": 4}
    assert [tensor.shape[-1] for tensor in wide.outputs] == [3, 6]


def test_padding_with_a_broadcast_sum():
    inputs = keras.Input((8, 8, 3))
    x = layers.Add()([Conv2D(5, 3)(inputs), Conv2D(1, 3)(inputs)])
    model = draw_weights(keras.Model(inputs, Conv2D(4, 3)(x)), np.random.default_rng(0))
    assert difference(model, pruning.pad_filters(model, 8)) <= TOLERANCE


def test_only_shared_layers_without_weights_can_be_padded():
    inputs = keras.Input((8, 8, 3))
    relu, twice = layers.ReLU(), Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(inputs, Dense(2)(relu(Dense(4)(Flatten()(relu(Conv2D(6, 3)(relu(Conv2D(5, 3)(inputs)))))))))
    assert difference(draw_weights(model, np.random.default_rng(0)), pruning.pad_filters(model, 8)) <= TOLERANCE
    with pytest.raises(ValueError, match="calls twice more than once"):
        pruning.pad_filters(keras.Model(inputs, twice(twice(inputs))), 8)


CHANNELS_FIRST = {"data_format": "channels_first"}


def test_channels_first_is_not_padded():
    try:
        layers.Conv2D(1, 1, **CHANNELS_FIRST)(np.zeros((1, 1, 1, 1), np.float32))
    except tf.errors.UnimplementedError:
        pytest.skip("without oneDNN, TensorFlow has no such convolution on this processor")
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(5, 3, activation="relu", **CHANNELS_FIRST)(inputs)
    x = layers.MaxPooling2D(**CHANNELS_FIRST)(layers.BatchNormalization(axis=1)(x))
    x = layers.Flatten(**CHANNELS_FIRST)(layers.Conv2D(6, 2, activation="relu", **CHANNELS_FIRST)(x))
    assert_padding_changes_nothing(keras.Model(inputs, layers.Dense(3)(x)))


def test_custom_convolutions_are_not_padded():
    images = keras.Input(IMAGES)
    y = StandardizedConv2D(4, 3)(layers.Conv2D(5, 3, activation="relu")(images))
    assert_padding_changes_nothing(keras.Model(images, y))


def assert_padding_changes_nothing(model):
    rng = np.random.default_rng(0)
    keras_applications.randomize(model, rng)
    examples = keras_applications.examples(model, rng)
    np.testing.assert_allclose(pruning.pad_filters(model, 8)(examples), model(examples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_padded_random_graphs_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    model = keras_applications.random_graph(rng)
    keras_applications.randomize(model, rng)
    wide = pruning.pad_filters(model, 8)
    examples = keras_applications.examples(model, rng)
    assert keras_applications.difference(model, wide, examples) <= keras_applications.TOLERANCE
    own = {layer.name: layer.filters for layer in wide.layers if type(layer) in (Conv2D, layers.SeparableConv2D)}
    assert all(filters % 8 == 0 or wide.get_layer(name).groups == 2 for name, filters in own.items())


def test_convolutions_of_any_rank_are_padded():
    texts, volumes = keras.Input((9, 3)), keras.Input((5, 5, 5, 2))
    x = layers.Conv1D(5, 3, activation="relu", name="one")(texts)
    x = layers.Conv1D(3, 3, name="last")(layers.Dropout(0.5)(layers.AveragePooling1D(2)(x)))
    y = layers.Conv3DTranspose(6, 2, activation="relu", name="other")(volumes)
    model = keras.Model([texts, volumes], [x, layers.Conv3D(2, 2)(layers.LeakyReLU()(y))])
    keras_applications.randomize(model, np.random.default_rng(0))
    wide = pruning.pad_filters(model, 4)
    assert [wide.get_layer(name).filters for name in ("one", "last", "other")] == [8, 4, 8]
    assert wide.get_layer("last").kernel.shape == (3, 8, 4), "it reads the padding"
    examples = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, wide, examples) <= keras_applications.TOLERANCE


@pytest.mark.slow
def test_units_of_zeros_stay_out_of_what_is_trained():
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    for name in ("second", "third"):
        y = keras.layers.ReLU()(keras.layers.Conv2D(17, 3, padding="same", name=name)(x))
        x = keras.layers.Add()([x, keras.layers.Conv2D(6, 3, padding="same", name=f"{name}_back")(y)])
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    images, labels = rng.normal(size=(64, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 64)
    narrow = pruning.insert_batch_norm(keras.Model(inputs, keras.layers.Dense(5, name="logits")(x)), images)
    wide = pruning.pad_filters(narrow, 16)
    kernels = {layer.name: layer.kernel.shape[-2:] for layer in wide.layers if hasattr(layer, "kernel")}
    assert kernels["first"] == (3, 16) and kernels["second"] == (16, 32) and kernels["second_back"] == (32, 16)
    assert kernels["logits"] == (4 * 4 * 6, 5)
    np.testing.assert_allclose(wide(images), narrow(images), atol=1e-5)
    for model in (narrow, wide):
        model.compile(keras.optimizers.SGD(0.05, 0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0)
    trained = keras.models.clone_model(narrow)
    pruning.copy_unpadded_weights(trained, wide)
    for weight, expected in zip(trained.get_weights(), narrow.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-3)
    np.testing.assert_allclose(trained(images), wide(images), atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [lambda x: x * np.arange(1, 11, dtype="float32"), keras.ops.log, keras.ops.rsqrt, lambda x: 1 / x],
)
def test_operations_that_padding_would_break_get_no_padding(function):
    inputs = keras.Input((6, 6, 3))
    x = function(Conv2D(10, 3, activation="relu", kernel_initializer="ones")(inputs))
    model = keras.Model(inputs, Dense(4)(layers.GlobalAveragePooling2D()(Conv2D(7, 3)(x))))
    images = np.random.default_rng(0).uniform(size=(4, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(pruning.pad_filters(model, 16)(images), model(images), rtol=1e-5, atol=1e-5)
