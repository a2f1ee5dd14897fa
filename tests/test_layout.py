"""Networks of channels_first layers, compared with the same networks of channels_last layers.

TensorFlow has no channels_first convolutions on a CPU; tests/backends compares with these.
"""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit, graph
from tests.stress import keras_applications
from tests.support.halves import half, kill


def network(data_format):
    """A residual block, a gate, a split, normalizations, and a Flatten of each kind."""
    is_first = data_format == "channels_first"
    common, axis = {"data_format": data_format}, 1 if is_first else -1
    numbers = iter(range(100))

    def own(kind, *arguments, **settings):
        return kind(*arguments, **settings, name=f"{kind.__name__}_{next(numbers)}")

    def convolution(x, units):
        x = own(L.Conv2D, units, 3, padding="same", **common)(x)
        return L.ReLU()(own(L.BatchNormalization, axis=axis)(x))

    inputs = keras.Input((3, 12, 12) if is_first else (12, 12, 3))
    x = convolution(inputs, 8)
    x = L.MaxPooling2D(**common)(L.Add()([x, convolution(x, 8)]))
    gate = own(L.Dense, 8, "sigmoid")(own(L.Dense, 4, "relu")(L.GlobalAveragePooling2D(**common)(x)))
    x = L.Multiply()([x, L.Reshape((8, 1, 1) if is_first else (1, 1, 8))(gate)])
    first, second = ops.split(x, 2, axis=axis)
    third = own(L.DepthwiseConv2D, 3, padding="same", **common)(second)
    x = L.Concatenate(axis=axis)([first, ops.silu(second), 2.0 * third])
    x = own(L.GroupNormalization, 4, axis=axis)(x)
    x = x + ops.mean(x, axis=(2, 3) if is_first else (1, 2), keepdims=True)
    x = L.UpSampling2D(**common)(L.Dropout(0.1)(own(L.Conv2DTranspose, 6, 2, 2, **common)(x)))
    x = own(L.SeparableConv2D, 5, 3, activation="tanh", **common)(L.ZeroPadding2D(**common)(x))
    x = L.AveragePooling2D(4, **common)(x)
    units_first = x if is_first else ops.transpose(x, (0, 3, 1, 2))
    return keras.Model(inputs, [own(L.Dense, 3)(y) for y in (L.Flatten(**common)(x), L.Flatten()(units_first))])


@pytest.fixture(scope="module")
def networks():
    first, last, rng = network("channels_first"), network("channels_last"), np.random.default_rng(0)
    keras_applications.randomize(first, rng)
    for layer in first.layers:
        if layer.weights:
            last.get_layer(layer.name).set_weights(layer.get_weights())
    return first, last, rng.normal(size=(2, 3, 12, 12)).astype(np.float32)


def test_the_same_is_computed_with_the_units_as_the_last_axis(networks):
    first, last, images = networks
    found, expected = graph.flatten_nested(first)(images), last(images.transpose(0, 2, 3, 1))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def test_as_much_is_pruned(networks):
    first, last, images = networks
    noisy, other = map(pruning.insert, (first, last))
    sizes = [sorted(layer.mu.shape[0] for layer in fit.noise_layers(model)) for model in (noisy, other)]
    assert sizes[0] == sizes[1] and pruning.unprunable(first).keys() == pruning.unprunable(last).keys()
    kill(noisy, half(noisy, np.random.default_rng(0)))
    smaller = pruning.shrink(noisy)
    assert keras_applications.difference(noisy, smaller, images) <= 1e-5
    assert counting.multiply_adds(smaller) < counting.multiply_adds(first) == counting.multiply_adds(last)


def test_error_where_new_layers_would_be_channels_first():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format"):
            pruning.insert(network("channels_first"))
    finally:
        keras.config.set_image_data_format("channels_last")
