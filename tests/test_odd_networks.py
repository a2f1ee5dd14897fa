"""Networks of layers that are almost of a kind that pruning knows: what they compute stays, whatever goes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import arrange, runtimes, timing
from keras_sbp.utils.pruning import counting, fit
from tests.stress import keras_applications

IMAGES = (8, 8, 3)


@keras.saving.register_keras_serializable("tests")
def to_length_1(x):
    return x / (1e-3 + ops.norm(x, axis=-1, keepdims=True))


def unknown_to_keras(x):
    return ops.abs(x)


@keras.saving.register_keras_serializable("tests")
class StandardisedConv2D(L.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2)))


@keras.saving.register_keras_serializable("tests")
class Doubled(L.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs) + ops.mean(inputs, axis=-1, keepdims=True)


class Twice(keras.Model):
    """A functional network that does something else than its graph."""

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training, mask=mask)


@keras.saving.register_keras_serializable("tests")
class Residual(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return x + super().call(x, training=training, mask=mask)


@keras.saving.register_keras_serializable("tests")
class Plain(keras.Layer):
    """Without a dtype among its arguments, and with an attribute that the noise has as a method."""

    def __init__(self, multiplier):
        super().__init__()
        self.multiplier = multiplier

    def call(self, inputs):
        return inputs * self.multiplier

    def get_config(self):
        return {"multiplier": self.multiplier}


@keras.saving.register_keras_serializable("tests")
class Concatenate(keras.Layer):
    """Of the name of a layer of Keras's that does something else."""

    axis = -1

    def call(self, inputs):
        return ops.concatenate([inputs[0], 3 * inputs[1]], axis=-1)


@keras.saving.register_keras_serializable("tests")
class Take(keras.Layer):
    """Of the name of an operation of Keras's."""

    def call(self, inputs):
        return 2 * inputs


def adapted():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(1).normal(3, 2, (64, *IMAGES)).astype(np.float32))
    return layer


def inside():
    """A network to put into others, with a concatenation."""
    inputs = keras.Input(IMAGES)
    x = L.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, L.Conv2D(3, 1)(L.Concatenate()([x, L.Conv2D(4, 1)(x)])))


def twice(inner):
    return lambda x: L.Concatenate()([inner(x), inner(x + 1)])


def by_name():
    """A model that is built from a list and called with a dict."""
    second, first = keras.Input((6,), name="b"), keras.Input((6,), name="a")
    inner = keras.Model([second, first], L.Concatenate()([L.Dense(4)(second), first]))
    return lambda x: inner({"a": L.Dense(6, activation="relu")(x), "b": L.Dense(6)(x)})


def constant():
    """With initialisers that are of one size."""
    start = keras.initializers.Constant
    return L.Conv2D(8, 1, kernel_initializer=start(np.ones((1, 1, 3, 8))), bias_initializer=start(np.arange(8.0)))


def lora():
    layer = L.Dense(8, activation="relu")
    layer.build((None, 3))
    layer.enable_lora(2)
    return layer


def text(*after):
    """Of an embedding with a mask, which some layers read."""
    inputs = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 8, mask_zero=True)(inputs)
    x = L.Dense(8, activation="relu")(x)
    for layer in after:
        x = layer(x)
    return keras.Model(inputs, L.Dense(3)(x))


def attention(x):
    x = L.LayerNormalization()(L.Add()([x, L.Dense(8)(L.Dense(16, activation="relu")(x))]))
    return L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 4)(x, x))


# {what is odd: layers between two convolutions and the end}
ON_IMAGES = {
    "adapted normalisation": lambda x: L.Conv2D(8, 3, activation="relu")(adapted()(x)),
    "adapted normalisation inside": lambda x: keras.Sequential([keras.Input(IMAGES), adapted(), L.Conv2D(8, 3)])(x),
    "subclass": lambda x: L.Conv2D(6, 3)(StandardisedConv2D(8, 3, activation="relu")(L.Conv2D(8, 3)(x))),
    "layers named like Keras's": lambda x: Take()(Concatenate()([L.Conv2D(6, 3)(x), L.Conv2D(4, 3)(x)])),
    "subclass of a dense layer": lambda x: Doubled(6)(L.Dense(8, activation="relu")(x)),
    "activation that mixes": lambda x: L.Conv2D(6, 3)(L.Conv2D(8, 3, activation=to_length_1)(x)),
    "activation of another library": lambda x: L.Conv2D(6, 3)(L.Conv2D(8, 3, activation=ops.silu)(x)),
    "layer of an activation that mixes": lambda x: L.Activation(to_length_1)(L.Conv2D(8, 3)(x)),
    "softmax, depthwise": lambda x: L.DepthwiseConv2D(3, activation="softmax")(L.Conv2D(8, 3, activation="relu")(x)),
    "softmax, groups": lambda x: L.Conv2D(16, 3, groups=4, activation="softmax")(L.Conv2D(8, 3)(x)),
    "softmax at each pixel": lambda x: L.Conv2D(3, 1, activation="softmax")(L.Conv2D(8, 3, activation="relu")(x)),
    "functions": lambda x: L.Conv2D(6, 3)(ops.exp(keras.activations.relu(L.Conv2D(8, 3)(x), max_value=0.1))),
    "negative index": lambda x: L.Dense(5)(ops.take(L.Dense(8)(x), [-1, 0, 2], axis=-1)),
    "scale of positions": lambda x: L.Rescaling(np.linspace(-1, 1, 8).reshape(8, 1))(L.Conv2D(8, 1)(x)),
    "one slope for all": lambda x: L.PReLU(shared_axes=[1, 2, 3])(L.Conv2D(8, 3)(x)),
    "concatenation twice": lambda x: twice(inside())(x),
    "activation that keras does not know": lambda x: L.Conv2D(6, 3)(L.Conv2D(8, 3, activation=unknown_to_keras)(x)),
    "activation that is learned": lambda x: L.Conv2D(6, 3)(L.Dense(8, activation=L.PReLU())(x)),
    "activation that is a layer": lambda x: L.Conv2D(6, 3)(L.Dense(8, activation=L.LeakyReLU(0.2))(x)),
    "arrays as initialisers": lambda x: L.Conv2D(6, 3)(L.ReLU()(constant()(x))),
    "adapter of low rank": lambda x: L.Conv2D(6, 3)(lora()(x)),
    "model inside by a keyword": lambda x: inside()(inputs=x),
    "model inside with a call": lambda x: Twice(*(lambda a: (a, L.Conv2D(5, 3)(a)))(keras.Input(IMAGES)))(x),
    "stack inside with a call": lambda x: Residual([L.Conv2D(8, 1, activation="relu"), L.Conv2D(3, 1)])(x),
    "product with a function of itself": lambda x: (lambda y: y * ops.sigmoid(y))(L.Conv2D(8, 3)(x)),
    "lambda of a module": lambda x: L.Lambda(lambda y: ops.abs(y))(L.Conv2D(8, 3, activation="relu")(x)),
    "lambda": lambda x: L.Lambda(lambda y: y[..., ::-1])(L.Conv2D(8, 3, activation="relu")(x)),
    "no dtype": lambda x: Plain(0.5)(L.Conv2D(8, 3, activation="relu")(x)),
    "inputs by name": lambda x: by_name()(L.GlobalAveragePooling2D()(x)),
    "names that noise would have": lambda x: L.Conv2D(4, 3, name="d_noise")(L.Conv2D(8, 3, name="d")(x)),
}
TEXTS = {
    "masked mean": lambda: text(L.GlobalAveragePooling1D()),
    "masked normalisation": lambda: text(L.BatchNormalization(), L.Dense(6, activation="relu"), L.LSTM(4)),
    "masked attention": lambda: text(attention),
}


def network(kind):
    if kind in TEXTS:
        return TEXTS[kind]()
    inputs = keras.Input(IMAGES)
    x = ON_IMAGES[kind](inputs)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    return keras.Model(inputs, L.Dense(3)(L.Dense(6, activation="relu")(x)))


@pytest.mark.parametrize("kind", [*ON_IMAGES, *TEXTS])
def test_outputs_stay(kind):
    outputs_stay(network(kind))


def outputs_stay(model):
    put_in, found = keras_applications.check(model, shares=(0.0, 0.5, 1.0))
    assert put_in <= 1e-5 and max(difference for difference, _ in found) <= keras_applications.TOLERANCE


def test_a_negative_multiplier_moves_past_no_activation():
    class Signs(keras.Layer):
        def multiplier(self):
            return np.float32([1, -1, -2, 0])

        def call(self, inputs):
            return inputs * self.multiplier()

    inputs = keras.Input((5,))
    model = keras.Model(inputs, L.Dense(3)(L.ReLU()(Signs()(L.Dense(4)(inputs)))))
    x = keras_applications.examples(model, np.random.default_rng(0), 8)
    assert keras_applications.difference(model, pruning.shrink(model), x) < 1e-5


@pytest.mark.parametrize("size", [8, None])
def test_a_network_arranged_for_a_cpu_computes_the_same(size):
    """A softmax at each pixel, images of any size, a convolution in two places."""
    inputs = keras.Input((size, size, 1))
    shared = L.Conv2D(1, 3, activation="relu")
    x = L.Conv2D(3, 1, activation="softmax")(shared(shared(L.Conv2D(1, 3)(inputs))))
    model = keras.Model(inputs, x)
    x = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, arrange.fast(model), x) < 1e-5


def test_a_smaller_network_is_float32_whatever_the_global_policy():
    noisy = pruning.insert(network("adapted normalisation"))
    keras_applications.kill(noisy, 0.5, np.random.default_rng(0))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        smaller = pruning.shrink(noisy)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in smaller.layers} == {"float32"}


def test_a_sum_keeps_the_units_and_positions_of_what_is_dead():
    """Of eight units and one for all, the eight dead; of an image and two vectors, the image dead."""
    inputs = keras.Input(IMAGES)
    images = np.random.default_rng(0).normal(size=(2, *IMAGES)).astype(np.float32)
    dead, others = L.Conv2D(8, 1), [L.Conv2D(1, 1), L.Conv2D(8, 8), L.Conv2D(8, 8)]
    for summands in (others[:1], others[1:]):
        x = L.Add()([SBP(name="noise")(dead(inputs)), *(layer(inputs) for layer in summands)])
        model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
        keras_applications.kill(model, 1.0, np.random.default_rng(0))
        assert keras_applications.difference(model, pruning.shrink(model), images) <= keras_applications.TOLERANCE


def test_a_concatenation_of_keras_ops_hands_on_no_mask():
    inputs = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 8, mask_zero=True)(inputs)
    x = ops.concatenate([L.Dense(8)(x), L.Dense(6)(x)], axis=-1)
    model = keras.Model(inputs, L.Dense(3)(L.LSTM(5)(x)))
    words = np.random.default_rng(1).integers(1, 20, (3, 12))
    words[:, 5:] = 0
    for other in (pruning.insert(model), pruning.shrink(model)):
        assert keras_applications.difference(model, other, words) <= keras_applications.TOLERANCE


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_images_of_integers_are_scaled_before_a_convolution(dtype):
    images = np.random.default_rng(0).integers(0, 255, (4, *IMAGES)).astype(dtype)
    inputs = keras.Input(IMAGES, dtype=dtype)
    x = L.Conv2D(8, 3, activation="relu")(L.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 0.5, np.random.default_rng(1))
    smaller = pruning.shrink(noisy)
    np.testing.assert_allclose(smaller.predict(images, verbose=0), noisy(images, training=False), atol=1e-5)


def test_words_stay_known():
    words = L.TextVectorization(30, output_sequence_length=8)
    words.adapt(np.array(["a b c d", "e f g"]))
    inputs = keras.Input((), dtype="string")
    x = L.Conv1D(8, 3, activation="relu")(L.Embedding(30, 6)(words(inputs)))
    noisy = pruning.insert(model := keras.Model(inputs, L.Dense(3)(L.GlobalMaxPooling1D()(x))))
    texts = tf.constant(["a b g", "c d e"])
    np.testing.assert_allclose(noisy(texts), model(texts), atol=1e-5)
    keras_applications.kill(noisy, 0.5, np.random.default_rng(1))
    np.testing.assert_allclose(pruning.shrink(noisy)(texts), noisy(texts), atol=1e-5)


@pytest.mark.parametrize("kind", [L.TextVectorization, L.StringLookup])
def test_words_keep_their_weights(kind):
    words = kind(max_tokens=9, output_mode="tf_idf", pad_to_max_tokens=True)
    texts = [["a"], ["b"], ["b"], ["z"]] if kind is L.StringLookup else ["a b c d", "e f b b", "a", "z b"]
    words.adapt(tf.constant(texts[:3]))
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, L.Dense(3)(L.Dense(8, activation="relu")(words(inputs))))
    texts = tf.reshape(tf.constant(texts), (4, 1))
    noisy = pruning.insert(model)
    np.testing.assert_allclose(noisy(texts), model(texts), atol=1e-5)
    np.testing.assert_allclose(pruning.shrink(noisy)(texts), model(texts), atol=1e-5)


def test_outputs_keep_their_names():
    """As `compile(loss={...})` and `fit` call them, whatever becomes of the layers that gave them."""
    inputs = keras.Input((6,))
    x = L.Dense(8, activation="relu")(inputs)
    inner = keras.Sequential([keras.Input((8,)), L.Dense(2)], name="inner")
    ends = [L.Identity(name="class"), L.BatchNormalization(name="place"), L.Rescaling(10.0, name="scaled")]
    model = keras.Model(inputs, [*(end(L.Dense(2)(x)) for end in ends), inner(x)])
    for share in (0.0, 1.0):
        noisy = pruning.insert(model)
        keras_applications.kill(noisy, share, np.random.default_rng(0))
        assert noisy.output_names == ["class", "place", "scaled", "inner"]
        assert pruning.shrink(noisy).output_names == ["class", "place", "scaled", "inner"]


def test_a_head_keeps_its_name_that_a_layer_inside_has_too():
    inputs, images = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(inputs, L.Dense(8, name="out", activation="relu")(inputs), name="inner")
    model = keras.Model(images, L.Dense(2, name="out")(inner(images)))
    noisy = pruning.insert(model)
    assert noisy.output_names == pruning.shrink(noisy).output_names == ["out"]
    assert noisy.get_layer("out").units == 2


def test_two_outputs_of_one_model_behind_a_layer():
    inputs, images = keras.Input((6,)), keras.Input((6,))
    x = L.Dense(8, activation="relu")(inputs)
    inner = keras.Model(inputs, [L.Dense(2, name="a")(x), L.Dense(3, name="b")(x)], name="inner")
    outputs_stay(keras.Model(images, inner(L.Rescaling(0.5)(images))))


def test_two_loaded_networks_with_operations_of_one_name(tmp_path):
    for name in ("one", "two"):
        keras.utils.clear_session()
        inputs = keras.Input((6,))
        x = L.Dense(8, name=f"{name}_first")(inputs)
        x = x + L.Dense(8, name=f"{name}_second")(x)
        keras.Model(inputs, L.Dense(2, name=f"{name}_last")(x), name=name).save(tmp_path / f"{name}.keras")
    keras.utils.clear_session()
    one, two = (keras.models.load_model(tmp_path / f"{name}.keras") for name in ("one", "two"))
    inputs = keras.Input((6,))
    outputs_stay(keras.Model(inputs, L.Average()([one(inputs), two(inputs)])))


def test_dropout_stays_for_fine_tuning_also_where_it_is_always_on():
    inputs = keras.Input((6,))
    x = L.Dropout(0.5, name="first")(L.Dense(50, activation="relu")(inputs), training=True)
    x = L.Dropout(0.5, name="second")(L.Dense(50, activation="relu")(x))
    smaller = pruning.shrink(pruning.insert(keras.Model(inputs, L.Dense(3)(x))))
    assert [layer.name for layer in smaller.layers if isinstance(layer, L.Dropout)] == ["first", "second"]
    assert np.abs(smaller(np.ones((1, 6))) - smaller(np.ones((1, 6)))).max() > 0


def joined(after):
    """A network in which units are, after that layer, units under other numbers."""
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = L.Concatenate(name="joined")([L.Conv2D(3, 1, name="one")(x), L.Conv2D(2, 1, name="other")(x)])
    return keras.Model(inputs, after(x))


@pytest.mark.parametrize(
    "after, why",
    [
        (L.Activation("softmax", name="shares"), "read by shares (Activation)"),
        (L.Flatten(name="logits"), "output of the network"),
        (lambda x: L.Dense(2)(L.LayerNormalization(name="norm")(L.Flatten()(x))), "read by norm (LayerNormalization)"),
        (lambda x: L.Dense(2)(L.DepthwiseConv2D(2, depth_multiplier=2, name="twice")(x)), "output of the network"),
    ],
)
def test_units_stay_that_are_under_other_numbers_units_that_stay(after, why):
    model = joined(after)
    if "twice" in [layer.name for layer in model.layers]:
        # Its output is the network's.
        model = keras.Model(model.inputs, model.get_layer("twice").output)
    noisy = pruning.insert(model)
    assert [layer.name for layer in fit.noise_layers(noisy)] == ["first_noise"]
    staying = pruning.unprunable(model)
    assert staying["one"] == staying["other"] == why and "first" not in staying


def test_one_step_of_fine_tuning_at_a_rate_of_0_changes_nothing():
    """Constraints were meant for kernels without theta and batch normalisation in them."""
    limit = keras.constraints.MaxNorm(1.0)
    inputs = keras.Input((6, 6, 3))
    norm, x = L.BatchNormalization(), L.Conv2D(8, 3, kernel_constraint=limit)(inputs)
    x = L.DepthwiseConv2D(2, depthwise_constraint=limit, bias_constraint=limit)(L.ReLU()(norm(x)))
    x = L.SeparableConv2D(4, 2, depthwise_constraint=limit, pointwise_constraint=limit)(x)
    model = keras.Model(inputs, L.Dense(2, kernel_constraint=limit)(L.Flatten()(x)))
    norm.gamma.assign(np.full(8, 5.0))
    smaller = pruning.shrink(pruning.insert(model))
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 3))
    before = smaller.predict(x, verbose=0)
    smaller.compile(keras.optimizers.SGD(0.0), "mse")
    smaller.fit(x, np.zeros((32, 2)), verbose=0)
    np.testing.assert_array_equal(smaller.predict(x, verbose=0), before)


def test_a_product_with_a_function_of_itself_has_noise():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("first", "second"):
        x = L.BatchNormalization()(L.Conv2D(8, 3, name=name)(x))
        x = x * (ops.relu6(x + 3.0) / 6.0) if name == "first" else L.Multiply()([x, L.Activation("sigmoid")(x)])
    model = keras.Model(inputs, L.Dense(3, name="last")(L.GlobalAveragePooling2D()(x)))
    assert pruning.unprunable(model) == {"last": "output of the network"}
    assert [layer.name for layer in fit.noise_layers(pruning.insert(model))] == ["first_noise", "second_noise"]
    outputs_stay(model)


def test_units_taken_by_number_of_an_axis_of_any_length():
    inputs = keras.Input((None,))
    model = keras.Model(inputs, L.Dense(2)(ops.take(inputs, [2, 5, 1], axis=-1)))
    x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    np.testing.assert_allclose(pruning.shrink(model)(x), model(x), atol=1e-6)


def test_a_filled_network_is_timed_with_its_zeros():
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(6, 3, activation="relu")(L.Conv2D(5, 3, activation="relu")(inputs))
    filled = pruning.pad_filters(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))), 8)
    assert counting.multiply_adds(timing.as_deployed(filled)) >= counting.multiply_adds(filled)


def test_a_network_is_timed_without_batch_normalisation():
    inputs = keras.Input((16, 16, 3))
    x = L.BatchNormalization()(L.Conv2D(5, 3)(inputs))
    deployed = timing.as_deployed(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    assert not any(isinstance(layer, L.BatchNormalization) for layer in deployed.layers)


def test_timing_is_of_a_network_in_use():
    """Keras's random layers are on unless they are told."""
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, L.Flatten()(L.RandomTranslation(0.5, 0.5, fill_mode="constant")(inputs)))
    images = np.random.default_rng(0).random((1, 2, 8, 8, 1), np.float32)
    run = runtimes.TensorFlow("CPU:0").runner(model, images)
    assert run(1) == run(1) == pytest.approx(images.sum(), rel=1e-5)


def test_outputs_of_16_bits_are_timed():
    inputs = keras.Input((4,), dtype="float32")
    model = keras.Model(inputs, L.Dense(3, kernel_initializer="ones", dtype="mixed_bfloat16")(inputs))
    run = runtimes.TensorFlow("CPU:0").runner(model, np.ones((1, 2, 4), np.float32))
    assert run(2) == 2 * 2 * 3 * 4


CHANNELS_FIRST = {"data_format": "channels_first"}


def test_what_has_its_channels_first_or_a_convolution_of_its_own_is_not_filled_up():
    rng, inputs = np.random.default_rng(0), keras.Input((3, 8, 8))
    x = L.Conv2D(5, 3, activation="relu", **CHANNELS_FIRST)(inputs)
    x = L.MaxPooling2D(**CHANNELS_FIRST)(L.BatchNormalization(axis=1)(x))
    x = L.Flatten(**CHANNELS_FIRST)(L.Conv2D(6, 2, activation="relu", **CHANNELS_FIRST)(x))
    images = keras.Input(IMAGES)
    y = StandardisedConv2D(4, 3)(L.Conv2D(5, 3, activation="relu")(images))
    for model in (keras.Model(inputs, L.Dense(3)(x)), keras.Model(images, y)):
        keras_applications.randomise(model, rng)
        examples = keras_applications.examples(model, rng)
        np.testing.assert_allclose(pruning.pad_filters(model, 8)(examples), model(examples), rtol=1e-4, atol=1e-5)


def test_what_stays_is_named_where_there_is_no_rule():
    inputs = keras.Input((4, 8))
    x = L.LSTM(5, name="lstm")(Doubled(7, name="doubled")(L.TimeDistributed(L.Dense(6), name="each")(inputs)))
    why = pruning.unprunable(keras.Model(inputs, L.Dense(2, name="out")(x)))
    assert why == {
        "each": "no rule for TimeDistributed",
        "doubled": "no rule for Doubled",
        "lstm": "no rule for LSTM",
        "out": "output of the network",
    }


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
@pytest.mark.parametrize("function", [ops.relu, keras.activations.relu, ops.gelu, ops.tanh, ops.square])
def test_a_function_of_keras_is_no_obstacle(function):
    inputs = keras.Input((8, 8, 3))
    x = ops.add(function(L.Conv2D(8, 3, name="one")(inputs)), function(L.Conv2D(8, 3, name="two")(inputs)))
    model = keras.Model(inputs, L.Dense(3, name="last")(L.GlobalAveragePooling2D()(x)))
    assert list(pruning.unprunable(model)) == ["last"]
    outputs_stay(model)
    (noise,) = fit.noise_layers(noisy := pruning.insert(model))
    noise.mu.assign([-20.0] * 6 + [-0.1] * 2)
    noise.log_sigma.assign([5.0] * 6 + [-4.0] * 2)
    assert counting.units(pruning.shrink(noisy)) == {"one": 2, "two": 2, "last": 3}


def test_a_quantised_network_is_an_error():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, activation="relu"), L.Dense(3, name="last")])
    model.quantize("int8")
    for prune in (pruning.insert, pruning.shrink):
        with pytest.raises(ValueError, match="last: quantised already. Prune first"):
            prune(model)


def test_a_network_with_a_call_of_its_own_is_an_error():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="has a call\\(\\) of its own"):
        pruning.insert(Twice(inputs, L.Dense(5)(inputs)))
    with pytest.raises(ValueError, match="has a call\\(\\) of its own"):
        pruning.insert(Residual([inputs, L.Dense(6)]))


def test_exclude_takes_a_list():
    with pytest.raises(TypeError, match="give a list"):
        pruning.insert(network("adapted normalisation"), exclude="dense")


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="is not built"):
        pruning.insert(keras.Sequential([L.Dense(3)]))
    noisy = pruning.insert(network("lambda"))
    noisy.compile(fit.optimizer(keras.optimizers.Adam(), keras.optimizers.Adam()), "mse")
    with pytest.raises(ValueError, match="insert it with kl_weight=1 / N"):
        noisy.fit(np.zeros((4, *IMAGES)), np.zeros((4, 3)), verbose=0, callbacks=[fit.AnnealKL()])


def test_costs_do_not_depend_on_weights_that_are_zero():
    inputs = keras.Input((5,))
    x = L.Dense(6, activation="relu", name="b")(L.Dense(8, activation="relu", name="a")(inputs))
    noisy = pruning.insert(keras.Model(inputs, L.Dense(3, kernel_initializer="zeros")(x)))
    kernel = noisy.get_layer("a").kernel
    kernel.assign(kernel * ([0] + [1] * 7))
    assert counting.unit_costs(noisy) == {"a_noise": 5 + 6, "b_noise": 8 + 3}
    assert not np.any(kernel[:, 0]) and not np.any(noisy.layers[-1].kernel), "they stay"


def test_what_is_normalised_together_with_excluded_units_is_named():
    inputs = keras.Input((8, 8, 3))
    first = L.Conv2D(4, 3, padding="same", name="first")(inputs)
    second = L.Conv2D(4, 3, padding="same", name="second")(L.ReLU()(L.BatchNormalization()(first)))
    x = L.BatchNormalization()(L.Concatenate()([first, second]))
    model = keras.Model(inputs, L.Conv2D(2, 8, name="last")(L.ReLU()(x)))
    assert set(pruning.unprunable(model)) == {"last"}
    why = pruning.unprunable(model, ["first"])
    assert why == {
        "first": "excluded", "second": "normalised together with units that stay", "last": "output of the network",
    }  # fmt: skip
    assert not fit.noise_layers(pruning.insert(model, exclude=["first"]))


def test_noise_in_a_network_inside_another_is_counted_and_set():
    noisy = pruning.insert(network("one slope for all"), kl_weight=1e-3)
    model = keras.Sequential([keras.Input(IMAGES), noisy])
    layers = [layer for layer in noisy.layers if isinstance(layer, SBP)]
    assert fit.noise_layers(model) == layers and counting.unit_costs(model) == counting.unit_costs(noisy)
    living = fit.LogLiveUnits()
    living.set_model(model)
    living.on_epoch_end(0, logs := {})
    assert logs["multiply_adds"] == counting.multiply_adds(noisy) and logs["kl_divergence"] > 0


def test_multiply_adds_of_attention_whatever_its_arguments_are_called():
    query, value = keras.Input((4, 6)), keras.Input((5, 8))
    mask = keras.Input((4, 5))
    attention = L.MultiHeadAttention(2, 3)
    by_hand = 2 * 3 * (4 * 6 + 5 * 8 + 5 * 8 + 4 * 6) + 2 * 2 * 4 * 5 * 3
    for model in (
        keras.Model([query, value], attention(query=query, key=value, value=value)),
        keras.Model([query, value, mask], attention(query, value, attention_mask=mask)),
    ):
        assert counting.multiply_adds(model) == by_hand


def test_multiply_adds_of_attention_along_one_axis():
    """24 positions: four projections from or to 8 units, and each attends to 6."""
    inputs = keras.Input((4, 6, 8))
    model = keras.Model(inputs, L.MultiHeadAttention(2, 4, attention_axes=(2,))(inputs, inputs))
    assert counting.multiply_adds(model) == 4 * 24 * 8 * 2 * 4 + 2 * 24 * 6 * (4 + 4)


def test_attention_of_keras_ops_is_named():
    inputs = keras.Input((6, 2, 8))
    with pytest.warns(UserWarning, match="DotProductAttention"):
        counting.multiply_adds(keras.Model(inputs, ops.dot_product_attention(inputs, inputs, inputs)))


@pytest.mark.parametrize("layer", [L.Attention(), L.Dot(2), L.TimeDistributed(L.Dense(3), trainable=False)])
def test_what_cannot_be_counted_is_named_frozen_or_without_weights(layer):
    first, second = keras.Input((4, 6)), keras.Input((5, 6))
    several = not isinstance(layer, L.TimeDistributed)
    model = keras.Model([first, second] if several else first, layer([first, second] if several else first))
    with pytest.warns(UserWarning, match=type(layer).__name__):
        counting.multiply_adds(model)
