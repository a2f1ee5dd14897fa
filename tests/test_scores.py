"""Sums over units: dot products, Attention, AdditiveAttention."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, halved


def inputs():
    return keras.Input((7, 5)), keras.Input((6, 5))


def attend(attention, *units, **settings):
    """Queries of one sequence; values of the other, and keys of their own if there are as many widths."""
    source, target = inputs()
    query, *others = (L.Dense(count, "tanh")(x) for count, x in zip(units, (target, source, source)))
    x = attention([query, *others], **settings)
    return keras.Model([source, target], L.Dense(3)(L.GlobalMaxPooling1D()(L.Concatenate()([query, x]))))


def self_attention():
    x = source = keras.Input((7, 5))
    x = L.Dense(8, "relu")(x)
    return keras.Model(source, L.Dense(3)(L.GlobalAveragePooling1D()(L.Attention()([x, x]))))


def padded():
    source, target = keras.Input((7,), dtype="int32"), keras.Input((6,), dtype="int32")
    keys = L.GRU(8, return_sequences=True)(L.Embedding(50, 6, mask_zero=True)(source))
    query = L.GRU(8, return_sequences=True)(L.Embedding(50, 6, mask_zero=True)(target))
    x = L.Attention()([query, keys])
    return keras.Model([source, target], L.Dense(3)(L.GlobalMaxPooling1D()(L.Concatenate()([query, x]))))


def of_an_input(attention):
    """Keys that cannot lose units themselves."""
    source, target = keras.Input((7, 8)), keras.Input((6, 5))
    return keras.Model([source, target], L.Dense(3)(attention([L.Dense(8)(target), source])))


def called_twice():
    source, target = inputs()
    attention, keys = L.AdditiveAttention(), L.Dense(8)(source)
    x = attention([L.Dense(8)(target), keys])
    return keras.Model([source, target], L.Dense(3)(attention([L.Dense(8)(x), keys])))


def recommender(normalize):
    ids = [keras.Input((1,), dtype="int32") for _ in range(2)]
    return keras.Model(ids, L.Dot(1, normalize=normalize)([L.Flatten()(L.Embedding(50, 8)(x)) for x in ids]))


def of_positions():
    source, target = inputs()
    return keras.Model([source, target], L.Dense(3)(L.Dot((2, -1))([L.Dense(8)(target), L.Dense(8)(source)])))


def of_an_input_normalized(rank):
    """A unit that is 0 in one of both counts in the other's norm."""
    source, target = (keras.Input((*(6, 7)[: rank - 2], size)) for size in (8, 5))
    x = L.Dot(-1, normalize=True)([source, L.Dense(8, "relu")(target)])
    return keras.Model([source, target], x if rank == 2 else L.Dense(3)(x))


def triplet():
    """Sums without an axis of units."""
    source = keras.Input((9,))
    one, other = L.Dense(8)(source), L.Dense(8)(source)
    x = ops.stack([ops.sum(one * one, axis=-1), ops.sum(one * other, -1) - ops.sum(other, -1)], axis=-1)
    return keras.Model(source, L.Dense(3)(x))


def siamese():
    ones, others = keras.Input((9,)), keras.Input((9,))
    branch = keras.Sequential([keras.Input((9,)), L.Dense(12, "relu"), L.Dense(8)])
    distance = ops.sum(ops.square(branch(ones) - branch(others)), axis=-1, keepdims=True)
    return keras.Model([ones, others], ops.sqrt(distance + 1e-6))


NETWORKS = {
    "Attention": lambda: attend(L.Attention(), 8, 8),
    "causal, with a scale": lambda: attend(L.Attention(use_scale=True), 8, 8, use_causal_mask=True),
    "keys of their own": lambda: attend(L.Attention(), 8, 6, 8),
    "sums of a query and a key": lambda: attend(L.Attention(score_mode="concat"), 8, 6, 8),
    "AdditiveAttention": lambda: attend(L.AdditiveAttention(), 8, 8),
    "AdditiveAttention, no scale": lambda: attend(L.AdditiveAttention(use_scale=False), 8, 6, 8),
    "self-attention": self_attention,
    "padded": padded,
    "of an input": lambda: of_an_input(L.Attention()),
    "sums with an input": lambda: of_an_input(L.AdditiveAttention()),
    "sums with an input, by Attention": lambda: of_an_input(L.Attention(score_mode="concat")),
    "called twice": called_twice,
    "recommender": lambda: recommender(False),
    "recommender, normalized": lambda: recommender(True),
    "of positions": of_positions,
    "siamese": siamese,
    "of an input, normalized": lambda: of_an_input_normalized(2),
    "of positions of an input, normalized": lambda: of_an_input_normalized(3),
    "triplet": triplet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_the_same(name):
    assert differences(NETWORKS[name]()) <= 1e-5


# In the others no unit can go, or none of a layer whose MACs are counted.
REMOVED = [name for name in NETWORKS if not any(part in name for part in ("recommender", "sums with", "normalized"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", REMOVED)
def test_training_goes_on_without_dead_units(name):
    assert difference_in_training(NETWORKS[name]()) <= 1e-5


def test_a_query_unit_goes_with_that_of_the_key():
    model = attend(L.Attention(), 8, 6, 8)
    noisy, smaller = halved(model)
    kernels = [tuple(layer.kernel.shape) for layer in smaller.layers if isinstance(layer, L.Dense)]
    assert sorted(kernels) == sorted([(5, 4), (5, 3), (5, 4), (4 + 3, 3)])
    # Query, key, value; scores and sums of 6 queries and 7 keys; the last layer.
    whole, half = (
        5 * (6 * query + 7 * query + 7 * value) + 6 * 7 * (query + value) + 3 * (query + value)
        for query, value in ((8, 6), (4, 3))
    )
    assert [counting.multiply_adds(network) for network in (model, smaller)] == [whole, half]


def test_a_unit_of_self_attention_goes():
    _, smaller = halved(self_attention())
    assert smaller.layers[1].units == 4


def test_masks_reach_attention_past_selected_units():
    source = keras.Input((7,), dtype="int32")
    x = L.Embedding(50, 8, mask_zero=True)(source)
    model = keras.Model(source, L.Dense(3)(L.GlobalAveragePooling1D()(L.Attention()([x, x]))))
    noisy, smaller = halved(model)
    words = np.where(np.arange(7) < [[7], [4], [2]], np.random.default_rng(0).integers(1, 50, (3, 7)), 0)
    assert keras_applications.difference(model, pruning.insert(model), words) <= 1e-5
    assert keras_applications.difference(noisy, smaller, words) <= 1e-5


def test_masks_of_values_reach_attention_that_loses_some_of_their_units():
    source, target = keras.Input((7,), dtype="int32"), keras.Input((6, 5))
    values = L.Embedding(50, 8, mask_zero=True, name="words")(source)
    x = L.Attention()([L.Dense(8)(target), values])[..., :3]
    model = keras.Model([source, target], L.Dense(3)(x))
    noisy, rng = pruning.insert(model, exclude=["words"]), np.random.default_rng(0)
    words = np.where(np.arange(7) < [[7], [4], [2]], rng.integers(1, 50, (3, 7)), 0)
    given = [words, rng.normal(size=(3, 6, 5)).astype(np.float32)]
    assert keras_applications.difference(noisy, pruning.shrink(noisy), given) <= 1e-5


def test_a_constant_unit_that_is_not_zero_stays_in_the_scores():
    """A unit of the query that a bias alone makes adds the same unit of the keys to all scores."""
    model = attend(L.Attention(), 8, 6, 8)
    query = model.layers[2]
    assert isinstance(query, L.Dense) and query.units == 8
    kernel, bias = np.array(query.kernel), np.array(query.bias)
    kernel[:, 2], bias[2] = 0, 3
    query.set_weights([kernel, bias])
    given = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, pruning.shrink(model), given) <= 1e-6


def test_other_axes_are_not_units():
    source, target = keras.Input((6, 5)), keras.Input((6, 4))
    x = L.Dot(1, name="dot")([L.Dense(8, name="dense")(source), L.Dense(8)(target)])
    model = keras.Model([source, target], L.Dense(3)(L.Flatten()(x)))
    assert "dot" in pruning.unprunable(model)["dense"]
    assert differences(model, (0.5,)) <= 1e-5
