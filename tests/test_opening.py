"""Composite layers and subclassed models: what is in them is pruned, if it computes the same."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from tests.stress import keras_applications
from tests.support.halves import difference_in_training, differences, halved, losses_of_five_steps

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


@keras.saving.register_keras_serializable("tests")
class Scaled(L.Layer):
    """Root mean square normalization with a scale of 1 + w, as in Gemma."""

    def __init__(self, epsilon=1e-3, **settings):
        super().__init__(**settings)
        self.epsilon = epsilon

    def build(self, shape):
        self.w = self.add_weight(shape=shape[-1:], initializer="normal", name="w")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon) * (1 + self.w)


@keras.saving.register_keras_serializable("tests")
class DropPath(L.Layer):
    """Stochastic depth."""

    def __init__(self, rate=0.5, **settings):
        super().__init__(**settings)
        self.rate, self.seed = rate, keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        drawn = keras.random.uniform((ops.shape(x)[0], *(1,) * (len(x.shape) - 1)), seed=self.seed)
        return x / (1 - self.rate) * ops.cast(drawn > self.rate, x.dtype)


@keras.saving.register_keras_serializable("tests")
class Rotated(L.Layer):
    """Causal attention with two heads of keys for four of queries, and rotated pairs of their dimensions."""

    def build(self, shape):
        self.norm, self.drop = Scaled(), DropPath()
        self.query = L.EinsumDense("btd,dnh->btnh", (None, 4, 4))
        self.key = L.EinsumDense("btd,dnh->btnh", (None, 2, 4))
        self.value = L.EinsumDense("btd,dnh->btnh", (None, 2, 4), bias_axes="nh")
        self.join = L.EinsumDense("btnh,nhd->btd", (None, shape[-1]))
        for layer in (self.norm, self.query, self.key, self.value):
            layer.build(shape)
        self.join.build((None, shape[1], 4, 4))

    def rotate(self, x):
        angles = ops.reshape(ops.arange(x.shape[1], dtype="float32"), (1, -1, 1, 1)) / np.float32([1, 100])
        first, second = ops.split(x, 2, axis=-1)
        parts = [first * ops.cos(angles) - second * ops.sin(angles), first * ops.sin(angles) + second * ops.cos(angles)]
        return ops.concatenate(parts, axis=-1)

    def call(self, x):
        y = self.norm(x)
        query, key, value = self.rotate(self.query(y)), self.rotate(self.key(y)), self.value(y)
        key, value = (ops.repeat(tensor, 2, axis=2) for tensor in (key, value))
        batch, length = ops.shape(x)[:2]
        mask = ops.arange(length)[:, None] >= ops.arange(length)
        scores = ops.einsum("btnh,bsnh->bnts", query, key)
        scores = ops.where(ops.broadcast_to(mask[None, None], (batch, 4, length, length)), scores, -1e9)
        y = ops.einsum("bnts,bsnh->btnh", ops.softmax(scores), value)
        return x + self.drop(self.join(y))

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("tests")
class Split(L.Layer):
    """Attention whose heads are parts of the units of dense layers, and words and positions of an embedding."""

    def build(self, shape):
        self.words, self.places = L.Embedding(50, WIDTH), L.Embedding(9, WIDTH)
        self.dense = [L.Dense(WIDTH) for _ in range(4)]
        for layer in self.dense:
            layer.build((None, None, WIDTH))
        self.words.build()
        self.places.build()
        self.kernel = self.add_weight(shape=(WIDTH, 24), name="kernel")
        self.offset = self.add_weight(shape=(24,), name="offset")

    def call(self, tokens):
        batch, length = ops.shape(tokens)
        x = self.words(tokens) + self.places(ops.arange(0, length))
        query, key, value = (
            ops.transpose(ops.reshape(layer(x), (batch, length, 2, -1)), (0, 2, 1, 3)) for layer in self.dense[:3]
        )
        weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
        y = ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (batch, length, WIDTH))
        return ops.gelu(ops.matmul(x + self.dense[3](y), self.kernel) + self.offset)

    def compute_output_shape(self, shape):
        return (*shape, 24)


@keras.saving.register_keras_serializable("tests")
class Transposed(TrainsOtherwise):
    """With a product that a weight is baked into."""

    def call(self, x):
        return ops.matmul(self.dense(x), ops.convert_to_tensor(ops.convert_to_numpy(self.dense.kernel)))

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("tests")
class AddsLoss(TrainsOtherwise):
    def call(self, x):
        self.add_loss(ops.mean(x))
        return self.dense(x)


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


@pytest.mark.slow
def test_blocks_class_tokens_and_positions_are_pruned(tmp_path):
    model = transformer()
    assert list(pruning.unprunable(model)) == [model.layers[-1].name]
    assert differences(model) <= 1e-5
    noisy, smaller = halved(model)
    assert counting.multiply_adds(model) > 3 * counting.multiply_adds(smaller)
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    assert keras_applications.difference(noisy, loaded, images[:2]) <= 1e-5
    for layer in loaded.layers:
        if isinstance(layer, L.Dropout):
            layer.rate = 0.0  # it moves the loss by more than five steps do
    losses = losses_of_five_steps(loaded, images)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_macs_are_those_of_what_is_in_a_block():
    inputs = keras.Input((5, WIDTH))
    attention = 2 * (5 * WIDTH * 4 * 8 + 5 * 5 * 2 * 8)
    assert counting.multiply_adds(keras.Model(inputs, Block()(inputs))) == attention + 5 * 2 * WIDTH * 32


@pytest.mark.slow
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
    [
        (TrainsOtherwise, "its layers compute something else in training"),
        (Computes, "cannot be opened"),
        (Transposed, "its layers compute something else at test time"),
        (AddsLoss, "add_loss"),
    ],  # fmt: skip
)
def test_what_does_not_compute_the_same_stays_a_barrier(layer, why):
    inputs = keras.Input((WIDTH,))
    layer = layer(name="odd")
    layer.dense.build((None, WIDTH))
    if isinstance(layer, Computes):
        layer.compute_output_shape = lambda shape: shape
    model = keras.Model(inputs, L.Dense(3)(L.Dense(8, "relu")(layer(inputs))))
    assert why in pruning.unprunable(model)["odd"]


def decoder():
    inputs = keras.Input((6, WIDTH))
    x = Rotated()(Rotated()(L.Dense(WIDTH)(inputs)))
    return keras.Model(inputs, L.Dense(3)(Scaled()(x)[:, -1]))


def words():
    tokens = keras.Input((7,), dtype="int32")
    return keras.Model(tokens, L.Dense(3)(L.GlobalAveragePooling1D()(Split()(tokens))))


@pytest.mark.slow
@pytest.mark.parametrize("network, ratio", [(decoder, 2), (words, 2)])
def test_attention_of_somebodys_own_is_pruned(network, ratio, tmp_path):
    model = network()
    assert differences(model) <= 1e-5
    noisy, smaller = halved(model)
    assert counting.multiply_adds(model) > ratio * counting.multiply_adds(smaller)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    assert {type(operation).__module__.split(".")[0] for operation in loaded.operations} == {"keras"}
    inputs = keras_applications.examples(model, np.random.default_rng(0), 8)
    assert keras_applications.difference(noisy, loaded, inputs) <= 1e-5
    losses = losses_of_five_steps(loaded, inputs)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert difference_in_training(model) <= 1e-5


def test_macs_of_attention_of_somebodys_own():
    heads, length = 4 * 4, 6
    projections = length * WIDTH * (heads + 2 * 2 * 4 + heads)
    attention = 2 * length * length * heads
    inputs = keras.Input((length, WIDTH))
    assert counting.multiply_adds(keras.Model(inputs, Rotated()(inputs))) == projections + attention


def test_stock_layers_stand_for_normalizations_and_stochastic_depth():
    noisy = pruning.insert(decoder())
    kinds = [type(layer) for layer in noisy.layers]
    assert kinds.count(L.RMSNormalization) == 3 and kinds.count(L.Dropout) == 2
    assert not {Scaled, DropPath, Rotated} & set(kinds)


@pytest.mark.slow
def test_weights_that_changed_since_a_layer_was_opened_are_the_new_ones():
    model, images = transformer(), np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    pruning.unprunable(model)
    model.set_weights([weight + 0.1 for weight in model.get_weights()])
    np.testing.assert_allclose(pruning.insert(model)(images), model(images), atol=1e-4)


@keras.saving.register_keras_serializable()
class Flipped(keras.layers.Layer):
    """A dense layer, on inputs in another order if it is told so."""

    def build(self, shape):
        self.dense = keras.layers.Dense(6, activation="relu")
        self.dense.build(shape)

    def call(self, inputs, flip=False):
        return self.dense(keras.ops.flip(inputs, -1) if flip else inputs)


def test_a_layer_that_is_called_in_two_ways_computes_the_same():
    inputs, layer = keras.Input((5,)), Flipped()
    x = keras.layers.Concatenate()([layer(inputs), layer(inputs, flip=True)])
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    given = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(pruning.insert(model)(given), model(given), atol=1e-5)
    assert "different arguments" in pruning.unprunable(model)[layer.name]


class Clipped(L.Dense):
    def call(self, inputs):
        return ops.clip(super().call(inputs), -20.0, 20.0)


class Unknown(L.Embedding):
    """Words that are not in the table are the first one of it."""

    def call(self, inputs):
        return super().call(ops.where(inputs < self.input_dim, inputs, 0))


class EpsilonOutside(L.Layer):
    """Of the square root, where LayerNormalization has it inside."""

    def __init__(self, epsilon=1e-6, **settings):
        super().__init__(**settings)
        self.epsilon = epsilon

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones")
        self.bias = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, x):
        normal = (x - ops.mean(x, -1, keepdims=True)) / (ops.std(x, -1, keepdims=True) + self.epsilon)
        return normal * self.scale + self.bias


def of_words(layer):
    words = keras.Input((6,), dtype="int32")
    return keras.Model(words, L.Dense(3)(L.GlobalAveragePooling1D()(layer(words))))


def of_numbers(layer):
    inputs = keras.Input((WIDTH,))
    return keras.Model(inputs, L.Dense(3)(L.Dense(8, "relu")(layer(inputs))))


RNG = np.random.default_rng(0)
FAR_FROM_ONE = {
    "clips": (of_numbers, lambda: Clipped(WIDTH), RNG.uniform(0, 255, (8, WIDTH))),
    "unknown words": (of_words, lambda: Unknown(50, WIDTH), RNG.integers(0, 80, (8, 6))),
    "epsilon": (of_numbers, EpsilonOutside, 1e-6 * RNG.normal(size=(8, WIDTH))),
}


@pytest.mark.parametrize("kind", FAR_FROM_ONE)
def test_a_stock_layer_that_agrees_near_one_only_is_not_taken(kind):
    build, layer, x = FAR_FROM_ONE[kind]
    model = build(layer())
    before, after = (ops.convert_to_numpy(network(x)) for network in (model, pruning.insert(model)))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


class Times(L.Layer):
    def __init__(self, factor, **settings):
        super().__init__(**settings)
        self.factor = factor

    def call(self, x):
        return self.factor * x


def test_what_changed_since_a_layer_was_opened_is_as_it_is_now():
    model = of_numbers(Times(1.0, name="times"))
    pruning.insert(model)
    model.get_layer("times").factor = 3.0
    x = RNG.normal(size=(8, WIDTH))
    before, after = (ops.convert_to_numpy(network(x)) for network in (model, pruning.insert(model)))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(Tokens(name="tokens")(inputs))))
    trained = len(pruning.insert(model).trainable_variables)
    model.get_layer("tokens").trainable = False
    assert len(pruning.insert(model).trainable_variables) < trained - 2


@keras.saving.register_keras_serializable("tests")
class Mixture(L.Layer):
    """With weights in a list."""

    def build(self, shape):
        self.kernels = [self.add_weight(shape=(shape[-1], WIDTH), name=f"kernel_{number}") for number in range(2)]

    def call(self, x):
        return sum(ops.relu(ops.matmul(x, kernel)) for kernel in self.kernels)


@keras.saving.register_keras_serializable("tests")
class Named(L.Layer):
    """With weights in a dict."""

    def build(self, shape):
        self.named = {"scale": self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")}

    def call(self, x):
        return self.named["scale"] * x


@keras.saving.register_keras_serializable("tests")
class Borrows(L.Layer):
    """Reads the kernel of a layer in it."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.first, self.second = L.Dense(WIDTH), L.Dense(WIDTH)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], WIDTH))

    def call(self, x):
        return ops.matmul(self.first(x), self.second.kernel)


@pytest.mark.parametrize("layer", [Mixture, Named, Borrows])
def test_a_copy_has_weights_of_its_own(layer):
    """It trains as many as the model, and does not read the model's."""
    model = of_numbers(layer())
    noisy = pruning.insert(model)
    noise = sum(weight.shape[0] for weight in noisy.trainable_weights if weight.name in ("mu", "log_sigma"))
    assert sum(np.prod(weight.shape) for weight in noisy.trainable_weights) - noise == model.count_params()
    x = RNG.normal(size=(8, WIDTH)).astype(np.float32)
    before = ops.convert_to_numpy(noisy(x))
    for weight in model.weights:
        weight.assign(0 * weight)
    np.testing.assert_array_equal(noisy(x), before)
