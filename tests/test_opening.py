"""Composite layers and subclassed models: what is in them is pruned, if it computes the same."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from tests.stress import keras_applications
from tests.support.halves import differences, halved, losses_of_five_steps

WIDTH = 16


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """An encoder block, with dropout."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]
        self.attention, self.dropout = L.MultiHeadAttention(2, 8, dropout=0.1), L.Dropout(0.3)
        self.first, self.second = L.Dense(32, "gelu"), L.Dense(WIDTH)

    def call(self, x, training=None):
        y = self.norms[0](x)
        x = x + self.dropout(self.attention(y, y), training=training)
        return x + self.second(self.dropout(self.first(self.norms[1](x)), training=training))


@keras.saving.register_keras_serializable("tests")
class Tokens(L.Layer):
    """Patches, with a class token in front and a table of positions."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.patches = L.Conv2D(WIDTH, 4, 4)

    def build(self, shape):
        self.patches.build(shape)
        self.token = self.add_weight(shape=(1, 1, WIDTH), initializer="normal", name="token")
        self.table = self.add_weight(shape=(1, 5, WIDTH), initializer="normal", name="table")

    def call(self, images):
        x = ops.reshape(self.patches(images), (-1, 4, WIDTH))
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, WIDTH))
        return ops.concatenate([token, x], axis=1) + self.table


@keras.saving.register_keras_serializable("tests")
class TrainsOtherwise(L.Layer):
    """Python that branches on training."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = L.Dense(WIDTH)

    def call(self, x, training=None):
        return 2 * self.dense(x) if training else self.dense(x)


@keras.saving.register_keras_serializable("tests")
class Computes(TrainsOtherwise):
    """With NumPy instead of keras.ops."""

    def call(self, x):
        return self.dense(np.asarray(x))


class Classifier(keras.Model):
    """A subclass with a call of its own."""

    def __init__(self):
        super().__init__()
        self.tokens, self.block, self.norm, self.head = Tokens(), Block(), L.LayerNormalization(), L.Dense(3)

    def call(self, images):
        return self.head(self.norm(self.block(self.tokens(images)))[:, 0])


def transformer():
    images = keras.Input((8, 8, 3))
    x = Block()(Block()(Tokens()(images)))
    return keras.Model(images, L.Dense(3)(L.LayerNormalization()(x)[:, 0]))


def test_blocks_class_tokens_and_positions_are_pruned(tmp_path):
    model = transformer()
    assert list(pruning.unprunable(model)) == [model.layers[-1].name]
    assert differences(model) <= 1e-5
    noisy, smaller = halved(model)
    assert counting.multiply_adds(model) > 3 * counting.multiply_adds(smaller)
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)
    smaller.save(tmp_path / "smaller.keras")
    loaded, images = keras.models.load_model(tmp_path / "smaller.keras"), np.zeros((32, 8, 8, 3), np.float32)
    assert keras_applications.difference(noisy, loaded, images[:2]) <= 1e-5
    losses = losses_of_five_steps(loaded, images)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_macs_are_those_of_what_is_in_a_block():
    inputs = keras.Input((5, WIDTH))
    attention = 2 * (5 * WIDTH * 4 * 8 + 5 * 5 * 2 * 8)
    assert counting.multiply_adds(keras.Model(inputs, Block()(inputs))) == attention + 5 * 2 * WIDTH * 32


def test_noise_trains_the_weights_that_a_layer_holds_itself():
    noisy = pruning.insert(transformer(), kl_weight=1e-3)
    before = {weight.path: np.asarray(weight) for weight in noisy.trainable_weights}
    losses = losses_of_five_steps(noisy, np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    tables = [weight for weight in noisy.trainable_weights if "embeddings" in weight.path]
    assert len(tables) == 2 and all((np.asarray(table) != before[table.path]).any() for table in tables)


def test_subclassed_models_are_opened():
    model, images = Classifier(), np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="not built: call it on data"):
        pruning.insert(model)
    expected = np.asarray(model(images))
    noisy = pruning.insert(model)
    np.testing.assert_allclose(noisy(images), expected, atol=1e-5)
    assert list(pruning.unprunable(model)) == [model.head.name]
    assert len(noisy.get_weights()) > len(model.get_weights())


@pytest.mark.parametrize(
    "layer, why",
    [(TrainsOtherwise, "its layers compute something else in training"), (Computes, "cannot be opened")],
)
def test_what_does_not_compute_the_same_stays_a_barrier(layer, why):
    inputs = keras.Input((WIDTH,))
    layer = layer(name="odd")
    layer.dense.build((None, WIDTH))
    if isinstance(layer, Computes):
        layer.compute_output_shape = lambda shape: shape
    model = keras.Model(inputs, L.Dense(3)(L.Dense(8, "relu")(layer(inputs))))
    assert why in pruning.unprunable(model)["odd"]
