"""Recurrent layers that hand their states to others: a unit goes from all of them."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, rebuild
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, half, halved, kill, losses_of_five_steps
from tests.support.slow import cases

WORDS = 50


def inputs():
    return keras.Input((7, 5)), keras.Input((6, 5))


def words():
    """An encoder and a decoder of padded words, as in Keras's example of translation."""
    source, target = keras.Input((7,), dtype="int32"), keras.Input((6,), dtype="int32")
    _, h, c = L.LSTM(8, return_state=True)(L.Embedding(WORDS, 6, mask_zero=True)(source))
    y = L.LSTM(8, return_sequences=True)(L.Embedding(WORDS, 6, mask_zero=True)(target), initial_state=[h, c])
    return keras.Model([source, target], L.Dense(3)(L.GlobalAveragePooling1D()(y)))


def two_layers():
    source, target = inputs()
    x, *first = L.LSTM(8, return_sequences=True, return_state=True)(source)
    x, *second = L.LSTM(6, return_state=True, dropout=0.2)(x)
    y = L.LSTM(8, return_sequences=True)(target, initial_state=first)
    return keras.Model([source, target], L.Dense(3)(L.LSTM(6)(y, initial_state=second)))


def of_cells():
    source, target = inputs()
    _, h = L.RNN(L.GRUCell(8), return_state=True)(source)
    return keras.Model([source, target], L.Dense(3)(L.GRU(8)(target, initial_state=h)))


def from_features():
    """An image's features as the state that a caption starts from."""
    features, target = keras.Input((10,)), keras.Input((6, 5))
    h, c = L.Dense(8, "tanh")(features), L.Dense(8)(features)
    return keras.Model([features, target], L.Dense(3)(L.LSTM(8)(target, initial_state=[h, c])))


def from_input():
    target, h = keras.Input((6, 5)), keras.Input((8,))
    return keras.Model([target, h], L.Dense(3)(L.GRU(8)(target, initial_state=h)))


def read_by_others():
    source, target = inputs()
    _, h, c = L.LSTM(8, return_state=True)(source)
    y = L.LSTM(8)(target, initial_state=[h, c])
    return keras.Model([source, target], L.Dense(3)(L.Concatenate()([h, c, y])))


def both_directions(kind, **settings):
    """States of both directions, side by side, as the states of a decoder."""
    source, target = inputs()
    x, *states = L.Bidirectional(kind(4, return_state=True, return_sequences=True), **settings)(L.Dense(6)(source))
    half = len(states) // 2
    states = [L.Concatenate()(pair) for pair in zip(states[:half], states[half:])]
    y = kind(8, return_sequences=True)(target, initial_state=states)
    if settings:
        return keras.Model([source, target], L.Dense(3)(L.Concatenate()([L.LSTM(4)(x), L.LSTM(4)(y)])))
    return keras.Model([source, target], L.Dense(3)(L.GlobalMaxPooling1D()(L.Attention()([y, x]))))


def into_both_directions():
    source, target = inputs()
    _, *states = L.Bidirectional(L.GRU(4, return_state=True))(source)
    return keras.Model([source, target], L.Dense(3)(L.Bidirectional(L.GRU(4))(target, initial_state=states)))


def step_by_step():
    """A decoder that is called once for each step, with its state and a context from the encoder's outputs."""
    source, target = inputs()
    keys, h = L.GRU(8, return_sequences=True, return_state=True)(source)
    decoder, attention, step = L.GRU(8, return_state=True), L.AdditiveAttention(), []
    for number in range(3):
        context = attention([L.RepeatVector(1)(h), keys])
        x = L.Concatenate()([target[:, number : number + 1], context])
        _, h = decoder(x, initial_state=h)
        step.append(h)
    return keras.Model([source, target], L.Dense(3)(L.Concatenate()(step)))


def twins():
    source, target = inputs()
    branch = L.LSTM(8)
    return keras.Model([source, target], L.Dense(3)(L.Concatenate()([branch(source), branch(target)])))


def twins_of_heads():
    source, target = inputs()
    heads = L.MultiHeadAttention(2, 4)
    x = [L.GlobalMaxPooling1D()(heads(x, x)) for x in (L.Dense(8)(source), L.Dense(8)(target))]
    return keras.Model([source, target], L.Dense(3)(L.Concatenate()(x)))


def positional():
    source, target = inputs()
    _, *states = L.Bidirectional(L.LSTM(4, return_state=True))(source)
    y, *_ = L.Bidirectional(L.LSTM(4, return_state=True))(target, states)
    return keras.Model([source, target], L.Dense(3)(y))


def images():
    source = keras.Input((4, 8, 8, 3))
    x, *states = L.ConvLSTM2D(6, 3, padding="same", return_state=True)(source)
    y = L.ConvLSTM2D(6, 3, padding="same")(source, initial_state=states)
    return keras.Model(source, L.Dense(3)(L.GlobalAveragePooling2D()(L.Add()([x, y]))))


NETWORKS = {
    "words": words,
    "two layers": two_layers,
    "of cells": of_cells,
    "from features": from_features,
    "from an input": from_input,
    "read by others": read_by_others,
    "both directions": lambda: both_directions(L.LSTM),
    "both directions, summed": lambda: both_directions(L.GRU, merge_mode="sum"),
    "into both directions": into_both_directions,
    "step by step": step_by_step,
    "twins": twins,
    "twins of heads": twins_of_heads,
    "positional": positional,
    "images": images,
}
SLOW = {
    "both directions, summed", "into both directions", "two layers", "images", "of cells", "words", "twins of heads",
    "from an input",
}  # fmt: skip


@pytest.mark.parametrize("name", cases(NETWORKS, slow=SLOW))
def test_outputs_stay_the_same(name):
    assert differences(NETWORKS[name]()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_on_without_dead_units(name):
    assert difference_in_training(NETWORKS[name]()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "two layers", "both directions"])
def test_a_third_is_left_and_learns(name):
    model = NETWORKS[name]()
    noisy, smaller = halved(model)
    assert counting.multiply_adds(model) >= 3 * counting.multiply_adds(smaller)
    losses = losses_of_five_steps(smaller, keras_applications.examples(noisy, np.random.default_rng(0), 8))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_encoder_and_decoder_lose_the_same_units():
    noisy, smaller = halved(words())
    # Three groups of units: the widths of both embeddings, and what both LSTMs share.
    assert sum(isinstance(layer, SBP) for layer in noisy.layers) == 3
    encoder, decoder = [layer for layer in smaller.layers if isinstance(layer, L.LSTM)]
    assert encoder.units == decoder.units == 4


def test_noise_of_a_state_that_only_a_next_layer_starts_from_is_inside_that_layer():
    """The state goes from layer to layer as it is: theta multiplies it once, when the next step reads it."""
    source, target = inputs()
    _, h = L.GRU(8, return_state=True)(source)
    noisy = pruning.insert(keras.Model([source, target], L.Dense(3)(L.GRU(8)(target, initial_state=h))))
    (noise,) = [layer for layer in noisy.layers if isinstance(layer, SBP)]
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(2, *tensor.shape[1:])).astype(np.float32) for tensor in noisy.inputs]
    noise.mu.assign(np.where(np.arange(8) < 3, -0.7, 0.0))
    theta = np.asarray(noise.multiplier())
    assert (theta[:3] < 0.6).all() and (theta[3:] > 0.9).all()
    encoder, decoder = [layer.layer for layer in noisy.layers if hasattr(layer, "noises")]
    states = [np.zeros((2, 8), np.float32)]
    for layer, sequence in zip((encoder, decoder), given):
        for step in range(sequence.shape[1]):
            scaled = keras.layers.GRUCell(8)
            scaled.build((2, 5))
            weights = layer.get_weights()
            scaled.set_weights([weights[0], weights[1] * theta[:, None], weights[2]])
            # The cell adds a share of the state itself, which theta does not multiply.
            _, states = scaled(sequence[:, step], states)
    dense = noisy.layers[-1]
    expected = (np.asarray(states[0]) * theta) @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    np.testing.assert_allclose(noisy(given), expected, rtol=1e-4, atol=1e-5)


def test_twins_share_one_layer_and_its_noise():
    noisy, smaller = halved(twins())
    assert sum(isinstance(layer, SBP) for layer in noisy.layers) == 1
    assert len([layer for layer in smaller.layers if isinstance(layer, L.LSTM)]) == 1


def test_a_layer_whose_cell_state_is_read_at_one_call_stays_one_layer():
    source, target = inputs()
    layer = L.LSTM(8, return_state=True)
    (_, _, c), (y, _, _) = layer(source), layer(target)
    model = keras.Model([source, target], L.Dense(3)(L.Concatenate()([c, y])))
    noisy, smaller = halved(model)
    assert len(smaller.trainable_weights) == len(model.trainable_weights)
    assert (
        keras_applications.difference(noisy, smaller, keras_applications.examples(model, np.random.default_rng(0)))
        <= 1e-5
    )


def padded_into_attention():
    source, target = keras.Input((7,), dtype="int32"), keras.Input((6, 5))
    encoder = L.Bidirectional(L.LSTM(4, return_sequences=True, return_state=True))
    keys, *_ = encoder(L.Embedding(WORDS, 6, mask_zero=True)(source))
    return keras.Model([source, target], L.Dense(3)(L.Attention()([L.Dense(8)(target), keys])))


def test_masks_reach_attention_past_both_directions():
    model = padded_into_attention()
    noisy, smaller = halved(model)
    rng = np.random.default_rng(0)
    words = np.where(np.arange(7) < [[7], [4], [2]], rng.integers(1, WORDS, (3, 7)), 0)
    given = [words, rng.normal(size=(3, 6, 5)).astype(np.float32)]
    assert keras_applications.difference(model, pruning.insert(model), given) <= 1e-5
    assert keras_applications.difference(noisy, smaller, given) <= 1e-5


def test_masks_of_a_decoder_reach_attention():
    """Both in what is shrunk and in what goes on training."""
    source, target = keras.Input((7,), dtype="int32"), keras.Input((7,), dtype="int32")
    words = [L.Embedding(WORDS, 6, mask_zero=True)(x) for x in (source, target)]
    keys, *states = L.LSTM(8, return_sequences=True, return_state=True)(words[0])
    query = L.LSTM(8, return_sequences=True)(words[1], initial_state=states)
    model = keras.Model([source, target], L.Dense(3)(L.Attention()([query, keys])))
    noisy = pruning.insert(model)
    rng = np.random.default_rng(0)
    given = [np.where(np.arange(7) < [[7], [4], [2]], rng.integers(1, WORDS, (3, 7)), 0) for _ in words]
    assert keras_applications.difference(model, noisy, given) <= 1e-5
    dead = half(noisy, rng)
    smaller, origin = rebuild.remove_units(noisy, dead)
    kill(noisy, dead)
    for variable, whole, index, offset in origin:
        variable.assign(np.asarray(whole)[index] + offset)
    assert keras_applications.difference(noisy, smaller, given) <= 1e-5
    assert keras_applications.difference(noisy, pruning.shrink(noisy), given) <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"training": None}, {"training": False}])
def test_what_fit_says_of_training_counts_as_in_the_network_as_given(settings):
    source = keras.Input((7, 5))
    x = L.LSTM(8, dropout=0.5)(source, **settings)
    model = keras.Model(source, L.Dense(3)(x))
    noisy = pruning.insert(model)
    for layer in noisy.layers:
        if isinstance(layer, SBP):
            layer.log_sigma.assign(np.full(8, -20.0))  # the noise itself hardly varies
    given = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    for network in model, noisy:
        one, other = (np.asarray(network(given, training=True)) for _ in range(2))
        assert np.abs(one - other).max() > 1e-3
        one, other = (np.asarray(network(given, training=False)) for _ in range(2))
        assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_frozen_weights_stay_as_they_are(when):
    source = keras.Input((7, 5))
    recurrent, attention = L.LSTM(8, return_sequences=True, name="recurrent"), L.MultiHeadAttention(2, 4, name="heads")
    x = recurrent(source)
    model = keras.Model(source, L.Dense(3)(attention(x, x)))
    recurrent.trainable = attention.trainable = when == "after"
    noisy = pruning.insert(model)
    inner = [noisy.get_layer(name).layer for name in ("recurrent", "heads")]
    for layer in inner if when == "after" else []:
        layer.trainable = False
    before = [[np.asarray(weight).copy() for weight in layer.weights] for layer in inner]
    noisy.compile("sgd", "mse")
    noisy.fit(np.ones((8, 7, 5)), np.ones((8, 7, 3)), 4, epochs=2, verbose=0)
    for layer, weights in zip(inner, before):
        assert all(np.array_equal(np.asarray(weight), old) for weight, old in zip(layer.weights, weights))


def test_what_a_recurrent_layer_adds_to_the_loss_is_kept():
    source = keras.Input((7, 5))
    x = L.LSTM(8, activity_regularizer=keras.regularizers.L2(0.1))(source)
    noisy = pruning.insert(keras.Model(source, L.Dense(3)(x)))
    given = np.random.default_rng(0).normal(size=(4, 7, 5)).astype(np.float32)
    expected = 0.1 * np.square(np.asarray(keras.Model(source, x)(given))).sum() / 4  # Keras: per example
    noisy(given)
    assert sum(float(loss) for loss in noisy.losses if loss.shape == ()) == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_keeps_its_units_starts_from_its_state_while_training_goes_on():
    source, target = inputs()
    _, h = L.GRU(8, return_state=True, name="first")(source)
    y = L.GRU(8, name="second")(L.Dense(6)(target), initial_state=h, training=False)
    noisy = pruning.insert(keras.Model([source, target], L.Dense(3)(y)), exclude=["first", "second"])
    rng = np.random.default_rng(0)
    dead = half(noisy, rng)
    smaller, origin = rebuild.remove_units(noisy, dead)
    kill(noisy, dead)
    for variable, whole, index, offset in origin:
        variable.assign(np.asarray(whole)[index] + offset)
    assert keras_applications.difference(noisy, smaller, keras_applications.examples(noisy, rng)) <= 1e-5


def test_a_layer_called_with_a_state_and_without_keeps_its_units():
    source, target = inputs()
    layer = L.GRU(8, return_state=True, name="odd")
    _, h = layer(source)
    y, _ = layer(target, initial_state=h)
    model = keras.Model([source, target], L.Dense(3)(y))
    assert pruning.unprunable(model)["odd"] == "called with an initial state, and without one"
    assert differences(model, (0.5,)) <= 1e-5


def test_a_constant_mask_of_attention_is_in_the_file(tmp_path):
    source = keras.Input((7, 8))
    causal = np.tril(np.ones((1, 7, 7), bool))
    x = L.MultiHeadAttention(2, 4)(source, source, attention_mask=causal)
    noisy = pruning.insert(keras.Model(source, L.Dense(3)(x)))
    noisy.save(tmp_path / "noisy.keras")
    given = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)
    again = keras.models.load_model(tmp_path / "noisy.keras")
    np.testing.assert_allclose(again(given), noisy(given), atol=1e-6)


def test_masks_given_by_position_are_kept():
    queries, values = keras.Input((4, 6)), keras.Input((5, 6))
    masks = [keras.Input((size,), dtype="bool") for size in (4, 5)]
    x = L.Attention()([L.Dense(6)(queries), L.Dense(6)(values)], masks)
    noisy = pruning.insert(keras.Model([queries, values, *masks], L.Dense(3)(x)))
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(3, size, 6)).astype(np.float32) for size in (4, 5)]
    given += [np.arange(size) < [[size], [2], [1]] for size in (4, 5)]
    kill(noisy, half(noisy, rng))
    np.testing.assert_allclose(pruning.shrink(noisy)(given), noisy(given), atol=1e-5)


def test_attention_that_is_called_in_two_ways_is_not_pruned():
    source = keras.Input((7, 8))
    attention = L.MultiHeadAttention(2, 4)
    x = attention(source, source, use_causal_mask=True)
    model = keras.Model(source, L.Dense(3)(attention(x, x)))
    noisy = pruning.insert(model)
    given = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)
    np.testing.assert_allclose(noisy(given), model(given), atol=1e-5)
    assert "different arguments" in pruning.unprunable(model)[attention.name]
