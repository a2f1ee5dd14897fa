"""Streams of units that are normalized: what is left of them computes the same."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, halved, losses_of_five_steps
from tests.support.slow import cases

WIDTH, HIDDEN, POSITIONS = 16, 32, 12
NORMS = {
    "layer": L.LayerNormalization,
    "layer, neither gamma nor beta": lambda: L.LayerNormalization(center=False, scale=False),
    "layer, no gamma": lambda: L.LayerNormalization(scale=False, epsilon=1e-6),
    "root mean square": L.RMSNormalization,
    "groups": lambda: L.GroupNormalization(4),
    "each unit": lambda: L.GroupNormalization(-1),
}


def before(x, norm):
    return L.Add()([x, L.Dense(WIDTH)(L.Dropout(0.1)(L.Dense(HIDDEN, "gelu")(norm()(x))))])


def after(x, norm):
    return norm()(L.Add()([x, L.Dense(WIDTH)(L.Dense(HIDDEN, "gelu")(x))]))


def network(norm, block=before, end=L.GlobalAveragePooling1D):
    """Two blocks on a stream of words, and a normalization at its end."""
    words = keras.Input((POSITIONS,), dtype="int32")
    x = L.Embedding(50, WIDTH)(words)
    for _ in range(2):
        x = block(x, norm)
    x = norm()(x)
    return keras.Model(words, L.Dense(3)(end()(x)) if end else x)


POOLING = [L.GlobalAveragePooling1D, L.GlobalMaxPooling1D]


@pytest.mark.parametrize("end", cases([*POOLING, None], slow=POOLING))
@pytest.mark.parametrize("block", [before, after])
@pytest.mark.parametrize("norm", NORMS)
def test_outputs_stay_the_same(norm, block, end):
    assert differences(network(NORMS[norm], block, end)) <= 1e-5


@pytest.mark.parametrize("norm", ["layer", "root mean square"])
def test_half_of_a_stream_takes_a_quarter_of_the_macs(norm):
    model = network(NORMS[norm])
    assert counting.multiply_adds(model) == 2 * POSITIONS * 2 * WIDTH * HIDDEN + 3 * WIDTH
    _, smaller = halved(model)
    expected = 2 * POSITIONS * 2 * (WIDTH // 2) * (HIDDEN // 2) + 3 * (WIDTH // 2)
    assert counting.multiply_adds(smaller) == keras_applications.traced_multiply_adds(smaller) == expected


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "root mean square"])
def test_smaller_streams_can_be_fine_tuned_and_pruned_again(norm):
    _, smaller = halved(network(NORMS[norm]))
    words = np.random.default_rng(0).integers(50, size=(64, POSITIONS))
    losses = losses_of_five_steps(smaller, words)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert differences(smaller) <= 1e-5


def test_a_large_mean_costs_no_precision():
    """Streams are summed up, so that their mean may be many times their deviation."""
    model = network(L.LayerNormalization)
    table = next(layer for layer in model.layers if isinstance(layer, L.Embedding))
    table.set_weights([np.asarray(table.embeddings) + 3.0])
    noisy, smaller = halved(model)
    words = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(noisy, smaller, words) <= 1e-5


def test_units_before_kernels_of_images():
    """As in ConvNeXt: a normalization before patches, one that a border of zeros would change, and a shared kernel."""
    images, shared = keras.Input((8, 8, 3)), L.Dense(8)
    x = L.Conv2D(8, 3, padding="same")(images)
    x = L.Conv2D(8, 2, strides=2)(L.LayerNormalization()(x))
    x = L.Conv2D(8, 3, padding="same")(L.LayerNormalization()(x))
    x = L.Add()([shared(L.LayerNormalization()(x)), shared(L.LayerNormalization()(x))])
    x = L.ReLU()(L.LayerNormalization()(x))
    assert differences(keras.Model(images, L.Dense(3)(L.GlobalAveragePooling2D()(x)))) <= 1e-5


def test_constants_before_a_normalization_are_kept():
    """A unit that is 1 for any input is part of the mean."""
    inputs = keras.Input((6,))
    dense = L.Dense(8, "relu", bias_initializer="ones", name="first")
    x = L.Dense(5)(L.LayerNormalization()(dense(inputs)))
    model = keras.Model(inputs, L.Dense(3)(x))
    kernel = np.asarray(dense.kernel).copy()
    kernel[:, :4] = 0.0
    dense.set_weights([kernel, dense.bias])
    smaller = pruning.shrink(model)
    assert counting.units(smaller)["first"] == 8
    given = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert keras_applications.difference(model, smaller, given) <= 1e-5


def test_bias_of_a_depthwise_convolution_keeps_no_unit_of_a_normalized_stream():
    """As in ConvNeXt."""
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 1)(images)
    x = L.Add()([x, L.Dense(8)(L.Dense(16, "gelu")(L.LayerNormalization()(L.DepthwiseConv2D(3, padding="same")(x))))])
    noisy, smaller = halved(keras.Model(images, L.Dense(2)(L.GlobalAveragePooling2D()(x))))
    assert counting.multiply_adds(smaller) == 64 * (3 * 4 + 9 * 4 + 2 * 4 * 8) + 2 * 4
    given = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    assert keras_applications.difference(noisy, smaller, given) <= 1e-5


@pytest.mark.parametrize("norm", ["layer", "root mean square", "groups"])
def test_units_are_removed_while_training_goes_on(norm):
    assert difference_in_training(network(NORMS[norm])) <= 1e-5
