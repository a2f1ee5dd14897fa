"""Recurrent layers and attention: noise inside of them, and what is left of them computes the same."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from keras_sbp.utils.tool import measure
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, halved, kill, losses_of_five_steps
from tests.support.slow import cases

STEPS = 7


def two(layer, between=lambda x: x):
    """Two recurrent layers after a dense one."""
    inputs = keras.Input((STEPS, 5))
    x = layer(return_sequences=True)(L.Dense(8, "relu")(inputs))
    return keras.Model(inputs, L.Dense(3)(layer()(between(x))))


def of(kind, **settings):
    return lambda **others: kind(6, **settings, **others)


def both(kind, **settings):
    return lambda **others: L.Bidirectional(kind(6, **others), **settings)


def residual():
    inputs = keras.Input((STEPS, 5))
    x = L.Dense(6)(inputs)
    for kind in L.LSTM, L.GRU:
        x = L.Add()([x, kind(6, return_sequences=True)(x)])
    return keras.Model(inputs, L.Dense(3)(L.GRU(4, go_backwards=True)(x)))


def images():
    inputs = keras.Input((4, 8, 8, 3))
    x = L.ConvLSTM2D(6, 3, padding="same", return_sequences=True)(inputs)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.ConvLSTM2D(5, 3)(x))))


def words():
    inputs = keras.Input((9,), dtype="int32")
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(L.Embedding(50, 8, mask_zero=True)(inputs))
    return keras.Model(inputs, L.Dense(3)(L.LSTM(5)(L.LayerNormalization()(x))))


RECURRENT = {
    "LSTM": lambda: two(of(L.LSTM, dropout=0.2, recurrent_dropout=0.1), L.Dropout(0.1)),
    "GRU": lambda: two(of(L.GRU), L.LayerNormalization()),
    "GRU, reset before, no bias": lambda: two(of(L.GRU, reset_after=False, use_bias=False), L.LayerNormalization()),
    "SimpleRNN": lambda: two(of(L.SimpleRNN, use_bias=False)),
    "both directions": lambda: two(both(L.LSTM)),
    "both directions, summed": lambda: two(both(L.GRU, merge_mode="sum")),
    "RNN of a cell": lambda: two(lambda **settings: L.RNN(L.GRUCell(6), **settings)),
    "residual": residual,
    "images": images,
    "masked words": words,
}


def transformer(attend, norm=L.LayerNormalization, after=False, mask=False, end=L.GlobalAveragePooling1D):
    """Two blocks of width 16, with the normalization before or after what is added to the stream."""
    inputs = keras.Input((9,), dtype="int32")
    x = L.Embedding(50, 16, mask_zero=mask)(inputs)
    for _ in range(2):
        if after:
            x = norm()(L.Add()([x, attend(x)]))
            x = norm()(L.Add()([x, L.Dense(16)(L.Dense(32, "gelu")(x))]))
        else:
            x = L.Add()([x, attend(norm()(x))])
            x = L.Add()([x, L.Dense(16)(L.Dense(32, "gelu")(norm()(x)))])
    return keras.Model(inputs, L.Dense(3)(end()(norm()(x))))


def heads(*sizes, **settings):
    call = {"use_causal_mask": settings.pop("causal", False)}
    return lambda x: L.MultiHeadAttention(*sizes, **settings)(x, x, **call)


def grouped(*sizes, **settings):
    return lambda x: L.GroupQueryAttention(*sizes, **settings)(x, x)


def cross():
    """Queries, keys and values of different widths, and a mask."""
    one, other, mask = keras.Input((5, 6)), keras.Input((7, 4)), keras.Input((5, 7), dtype="bool")
    query, value, key = L.Dense(16)(one), L.Dense(12)(other), L.Dense(10)(other)
    x = L.MultiHeadAttention(4, 5, value_dim=3, output_shape=8)(query, value, key, attention_mask=mask)
    x = L.GroupQueryAttention(4, 4, 2)(L.Dense(12)(x), value)
    return keras.Model([one, other, mask], L.Dense(3)(L.Flatten()(x)))


ATTENTION = {
    "before": lambda: transformer(heads(4, 4)),
    "after": lambda: transformer(heads(4, 4, value_dim=6, dropout=0.1), after=True),
    "no bias": lambda: transformer(heads(2, 8, use_bias=False, causal=True)),
    "root mean square": lambda: transformer(heads(4, 4), L.RMSNormalization),
    "groups": lambda: transformer(grouped(4, 4, 2)),
    "groups, after": lambda: transformer(grouped(4, 4, 2, use_bias=False), L.RMSNormalization, after=True),
    "one group": lambda: transformer(grouped(4, 6, 1)),
    "mask": lambda: transformer(heads(4, 4), mask=True),
    "mask, after": lambda: transformer(heads(4, 4), mask=True, after=True),
    "cross": cross,
}
NETWORKS = RECURRENT | ATTENTION
SLOW = {
    "both directions, summed", "no bias", "root mean square", "groups", "one group", "mask", "after", "mask, after",
    "GRU", "RNN of a cell", "masked words",
}  # fmt: skip


@pytest.mark.parametrize("name", cases(NETWORKS, slow=SLOW))
def test_outputs_stay_the_same(name):
    assert differences(NETWORKS[name]()) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("dead", [[8, 10, 11], [0, 1, 3]])
def test_directions_that_lose_different_numbers_of_units(dead):
    """Keras wants as many units in both: the shorter one is filled up, here the backward or the forward one."""
    inputs = keras.Input((STEPS, 5))
    noisy = pruning.insert(keras.Model(inputs, L.Dense(3)(L.Bidirectional(L.GRU(6, return_sequences=True))(inputs))))
    (noise,) = fit.noise_layers(noisy)
    kill(noisy, {noise.name: np.isin(np.arange(12), dead)})
    smaller = pruning.shrink(noisy)
    x = np.random.default_rng(0).normal(size=(4, STEPS, 5))
    np.testing.assert_allclose(smaller.predict(x, verbose=0), noisy.predict(x, verbose=0), atol=1e-6)
    assert smaller.layers[-1].kernel.shape[0] == 9, "what fills up is read by nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "both directions", "images", "before", "groups, after", "cross"])
def test_units_are_removed_while_training_goes_on(name):
    assert difference_in_training(NETWORKS[name]()) <= 1e-5


def test_macs_of_half_of_two_recurrent_layers_in_both_directions():
    """Whatever is counted, it is so much for each number of units."""

    def macs(dense, units):
        width = 2 * units  # of both directions
        first = 2 * STEPS * 4 * units * (dense + units)
        second = 2 * STEPS * 4 * units * (width + units)
        return STEPS * 5 * dense + first + second + 3 * width

    model = two(both(L.LSTM))
    assert counting.multiply_adds(model) == macs(8, 6)
    noisy = pruning.insert(model)
    kill(noisy, {layer.name: np.arange(layer.mu.shape[0]) % 2 == 0 for layer in fit.noise_layers(noisy)})
    assert counting.multiply_adds(pruning.shrink(noisy)) == macs(4, 3)


def test_macs_of_what_is_left_of_attention():
    """One head of four, two of four dimensions of its keys and three of its values, on half of the stream."""
    model = transformer(heads(4, 4))

    def macs(width, hidden, heads, keys, values):
        attention = heads * (9 * width * (2 * keys + 2 * values) + 9 * 9 * (keys + values))
        return 2 * (attention + 9 * 2 * width * hidden) + 3 * width

    assert counting.multiply_adds(model) == macs(16, 32, 4, 4, 4)
    noisy = pruning.insert(model)
    for layer in fit.noise_layers(noisy):
        dead = np.arange(layer.mu.shape[0]) % 2 == 0
        if "heads" in layer.name:
            dead = np.arange(4) != 2
        elif "query_key" in layer.name:
            dead = np.arange(16) % 4 < 2
        elif "values" in layer.name:
            dead = np.arange(16) % 4 == 3
        kill_one(layer, dead)
    smaller = pruning.shrink(noisy)
    assert counting.multiply_adds(smaller) == macs(8, 16, 1, 2, 3)
    # As a report says it.
    reported = {each.layer: (each.before, each.after) for each in measure.units(model, smaller, ())}
    for layer in model.layers:
        if isinstance(layer, L.MultiHeadAttention):
            parts = (layer.name, f"{layer.name} (queries and keys)", f"{layer.name} (values)")
            assert [reported[part] for part in parts] == [(4, 1), (4, 2), (4, 3)]


def kill_one(layer, dead):
    layer.mu.assign(np.where(dead, -20.0, 0.0))
    layer.log_sigma.assign(np.where(dead, 5.0, -4.0))


def test_the_last_of_its_queries_takes_a_head_of_keys_along():
    model = transformer(grouped(4, 4, 2))
    noisy = pruning.insert(model)
    for layer in fit.noise_layers(noisy):
        kill_one(layer, np.arange(4) >= 2 if "heads" in layer.name else np.zeros(layer.mu.shape[0], bool))
    smaller = pruning.shrink(noisy)
    left = [layer for layer in smaller.layers if type(layer) is L.GroupQueryAttention]
    assert [(layer.num_query_heads, layer.num_key_value_heads) for layer in left] == [(2, 1)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both directions", "masked words", "after", "groups"])
def test_what_is_left_is_of_stock_layers_and_can_be_trained(name, tmp_path):
    noisy, smaller = halved(NETWORKS[name]())
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)
    inputs = keras_applications.examples(noisy, np.random.default_rng(0), count=32)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    assert keras_applications.difference(noisy, loaded, inputs) <= 1e-5
    losses = losses_of_five_steps(loaded, inputs)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both directions", "groups"])
def test_noise_inside_is_trained_saved_and_loaded(name, tmp_path):
    noisy = pruning.insert(NETWORKS[name](), kl_weight=1e-3)
    inputs = keras_applications.examples(noisy, np.random.default_rng(0), count=32)
    before = {layer.name: np.asarray(layer.mu) for layer in fit.noise_layers(noisy)}
    losses = losses_of_five_steps(noisy, inputs)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    for layer in fit.noise_layers(noisy):
        assert (np.asarray(layer.mu) != before[layer.name]).any(), layer.name
    noisy.save(tmp_path / "noisy.keras")
    loaded = keras.models.load_model(tmp_path / "noisy.keras")
    assert keras_applications.difference(noisy, loaded, inputs) == 0


def test_theta_multiplies_the_state_at_each_step():
    """A unit of no noise but half of its value: as with half of the weights that read it."""
    inputs = keras.Input((STEPS, 5))
    model = keras.Model(inputs, L.Dense(3)(L.GRU(4)(inputs)))
    noisy = pruning.insert(model)
    (noise,) = [layer for layer in noisy.layers if isinstance(layer, SBP)]
    noise.scale, noise.threshold = 0.5 * noise.scale, 0.0
    _, gru, dense = model.layers
    gru.set_weights([gru.cell.kernel, np.asarray(gru.cell.recurrent_kernel) / 2, gru.cell.bias])
    dense.set_weights([np.asarray(dense.kernel) / 2, dense.bias])
    given = np.random.default_rng(0).normal(size=(2, STEPS, 5)).astype(np.float32)
    assert keras_applications.difference(model, noisy, given) <= 1e-6


@pytest.mark.parametrize("layer", [L.LSTM(6), lambda x: L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 4)(x, x))])
def test_noise_inside_follows_a_product_that_keras_takes_for_sparse(layer):
    inputs = keras.Input((STEPS, 4))
    assert (2 * inputs).sparse
    assert differences(keras.Model(inputs, L.Dense(3)(layer(2 * inputs))), (0.5,)) <= 1e-5


@pytest.mark.parametrize(
    "layer, why",
    [
        (
            lambda x: L.Bidirectional(L.LSTM(4), merge_mode="mul", name="odd")(x, initial_state=[x[:, 0]] * 4),
            "returns both directions, or takes or returns their states",
        ),
        (lambda x: L.LSTM(4, activation="softmax", name="odd")(x), "its activation mixes units"),
        (lambda x: L.MultiHeadAttention(2, 2, use_gate=True, name="odd")(x, x), "use_gate is set"),
        (
            lambda x: L.MultiHeadAttention(2, 2, name="odd")(x, x, return_attention_scores=True)[0],
            "returns its scores",
        ),
    ],
)
def test_reasons_for_what_cannot_be_pruned(layer, why):
    inputs = keras.Input((STEPS, 4))
    x = layer(L.Dense(4)(inputs))
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    model = keras.Model(inputs, L.Dense(3)(L.Dense(6, "relu")(x)))
    assert pruning.unprunable(model)["odd"] == why
    assert differences(model, (0.5,)) <= 1e-5
