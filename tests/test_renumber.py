"""Units that are split, sliced, shuffled or reshaped: what is left of them computes the same."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit, graph
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, halved, kill, losses_of_five_steps

SEQUENCE, IMAGE = (4, 6), (8, 8, 3)


def ended(inputs, x):
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def gated():
    inputs = keras.Input(SEQUENCE)
    units, gates = ops.split(L.Dense(12, name="both")(inputs), 2, axis=-1)
    return ended(inputs, ops.glu(L.Dense(16)(units * ops.sigmoid(gates))))


def sliced():
    """Slices that overlap, and zeros in front of and behind units."""
    inputs = keras.Input(SEQUENCE)
    x = L.Dense(12)(inputs)
    first, second = L.Dense(6)(ops.relu(x[..., :5])), L.Dense(9)(x[:, :, 9:2:-1])
    x = ops.pad(first, [(0, 0), (0, 0), (2, 1)]) + second
    return ended(inputs, ops.take(L.Dense(8)(x), [3, 1, 6], axis=-1))


def reduced():
    """Means, sums, deviations and the largest of positions, and arrays."""
    inputs, rng = keras.Input(SEQUENCE), np.random.default_rng(1)
    x = L.Dense(9)(inputs) * np.arange(9.0)
    x = ops.subtract(1.5, x + rng.normal(size=(4, 9)))
    x = ops.maximum(rng.normal(size=(1, 4, 1)).astype("float32"), x)
    x = L.LayerNormalization()(L.Dense(8)(ops.swapaxes(ops.expand_dims(x, 1), 1, 2)))
    x = ops.max(x, axis=1) + ops.sum(x, axis=1) + ops.mean(x, axis=(1,)) + ops.var(ops.flip(x, axis=1), axis=1)
    x = L.Dense(5)(ops.squeeze(x, 1))
    return ended(inputs, L.Dense(5)(ops.clip(ops.stack([x, ops.square(x)], axis=1), 0.0, 2.0)))


def decoder():
    """Units that become positions: after a dense layer, and in pixel shuffles of both orders."""
    inputs = keras.Input((5,))
    x = L.Reshape((2, 2, 8))(L.ReLU()(L.BatchNormalization()(L.Dense(32)(inputs))))
    x = ops.depth_to_space(L.Conv2D(24, 3, padding="same", activation="relu")(x), 2)
    x = ops.reshape(L.Conv2D(20, 3, padding="same")(x), (-1, 4, 4, 5, 2, 2))
    x = ops.reshape(ops.transpose(x, (0, 1, 4, 2, 5, 3)), (-1, 8, 8, 5))
    x = L.Resizing(8, 8)(L.Conv2D(4, 1)(ops.image.resize(x, (6, 6))))
    return ended(inputs, L.Conv2D(6, 1)(ops.space_to_depth(L.ReLU()(x), 4)))


def film():
    """The same network for each image of a sequence."""
    inputs = keras.Input((5, *IMAGE))
    image = [L.Conv2D(4, 3, activation="relu"), L.Dropout(0.1), L.Conv2D(6, 3, padding="same"), L.Flatten()]
    x = L.LSTM(4, return_sequences=True)(L.TimeDistributed(keras.Sequential(image))(inputs))
    return ended(inputs, L.TimeDistributed(L.Dense(7, activation="relu", name="each"))(x))


NETWORKS = {network.__name__: network for network in (gated, sliced, reduced, decoder, film)}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_the_same(name):
    model = NETWORKS[name]()
    assert list(pruning.unprunable(model)) == [model.layers[-1].name], "all but the output's layer"
    assert differences(model) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_units_are_removed_while_training_goes_on(name):
    assert difference_in_training(NETWORKS[name]()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sliced", "decoder"])
def test_smaller_networks_open_and_can_be_fine_tuned_and_pruned_again(name, tmp_path):
    _, smaller = halved(NETWORKS[name]())
    given = keras_applications.examples(smaller, np.random.default_rng(0), 32)
    smaller.save(tmp_path / "smaller.keras")
    assert keras_applications.difference(smaller, keras.models.load_model(tmp_path / "smaller.keras"), given) <= 1e-6
    losses = losses_of_five_steps(smaller, given)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert differences(smaller, (0.5,)) <= 1e-5


def test_units_of_a_gate_go_in_pairs():
    model = gated()
    noisy = pruning.insert(model)
    split, *_ = fit.noise_layers(noisy)
    kill(
        noisy,
        {layer.name: np.arange(layer.mu.shape[0]) < (4 if layer is split else 0) for layer in fit.noise_layers(noisy)},
    )
    assert counting.units(pruning.shrink(noisy))["both"] == 2 * (6 - 4)


def test_units_of_a_pixel_shuffle_go_in_fours():
    inputs = keras.Input(IMAGE)
    x = ops.depth_to_space(L.Conv2D(20, 3, name="before")(inputs), 2)
    noisy = pruning.insert(ended(inputs, x))
    (noise,) = fit.noise_layers(noisy)
    kill(noisy, {noise.name: np.array([True, False, True, False, False])})
    assert counting.units(pruning.shrink(noisy))["before"] == 20 - 2 * 4


def test_halves_of_different_sizes_are_left_of_a_split():
    inputs = keras.Input((6,))
    first, second = ops.split(L.Dense(8, name="both")(inputs), 2, axis=-1)
    noisy = pruning.insert(keras.Model(inputs, [L.Dense(2)(first), L.Dense(2)(second)]))
    one, other = fit.noise_layers(noisy)
    kill(noisy, {one.name: np.arange(4) < 3, other.name: np.arange(4) < 1})
    smaller = pruning.shrink(noisy)
    assert counting.units(smaller)["both"] == 1 + 3
    assert keras_applications.difference(noisy, smaller, np.ones((2, 6), np.float32)) <= 1e-6


def test_macs_of_each_image_of_a_sequence_count():
    images, steps, end = 6 * 6 * 9 * 3 * 4 + 6 * 6 * 9 * 4 * 6, 4 * 4 * (216 + 4) + 4 * 7, 5 * 7 * 3
    assert counting.multiply_adds(film()) == 5 * (images + steps) + end


SHUFFLES = {  # reshape to, order of these axes, reshape to
    "channels": ((4, 6, 3, 4), (0, 1, 3, 2), (4, 6, 12)),
    "pixels, units last": ((4, 6, 2, 2, 3), (0, 2, 1, 3, 4), (8, 12, 3)),
    "pixels, units first": ((4, 6, 3, 2, 2), (0, 3, 1, 4, 2), (8, 12, 3)),
    "blocks, units last": ((2, 2, 3, 2, 12), (0, 2, 1, 3, 4), (2, 3, 48)),
    "blocks, units first": ((2, 2, 3, 2, 12), (0, 2, 4, 1, 3), (2, 3, 48)),
    "flat, units first": ((4, 6, 12), (2, 0, 1), (288,)),
    "heads": ((24, 3, 4), (1, 0, 2), (3, 24, 4)),
    "parts of units and of positions": ((4, 6, 2, 3, 2), (3, 0, 1, 4, 2), (3, 24, 4)),
}


@pytest.mark.parametrize("layers", [True, False])
@pytest.mark.parametrize("name", SHUFFLES)
def test_shuffles_are_written_as_what_has_rules(name, layers):
    middle, order, after = SHUFFLES[name]
    inputs = keras.Input((4, 6, 12))
    if layers:
        x = L.Permute([axis + 1 for axis in order])(L.Reshape(middle)(inputs))
        model = keras.Model(inputs, L.Reshape(after)(x))
    else:
        x = ops.transpose(ops.reshape(inputs, (-1, *middle)), (0, *(axis + 1 for axis in order)))
        model = keras.Model(inputs, ops.reshape(x, (-1, *after)))
    given = np.arange(2 * 4 * 6 * 12, dtype=np.float32).reshape(2, 4, 6, 12)
    np.testing.assert_array_equal(graph.flatten_nested(model)(given), model(given))
    x = L.Conv2D(12, 1, name="conv")(inputs)
    assert "conv" not in pruning.unprunable(ended(inputs, model(x)))
