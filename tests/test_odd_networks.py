"""Networks of layers that almost have a pruning rule: their outputs stay the same, whatever is removed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from keras import ops

from keras_sbp import keras_private
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from tests.stress import keras_applications
from tests.support.slow import cases

IMAGES = (8, 8, 3)


@keras.saving.register_keras_serializable("tests")
def to_length_1(x):
    return x / (1e-3 + ops.norm(x, axis=-1, keepdims=True))


def unknown_to_keras(x):
    return ops.abs(x)


@keras.saving.register_keras_serializable("tests")
class StandardizedConv2D(L.Conv2D):
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
    """With initializers that are of one size."""
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
    "adapted normalization": lambda x: L.Conv2D(8, 3, activation="relu")(adapted()(x)),
    "adapted normalization inside": lambda x: keras.Sequential([keras.Input(IMAGES), adapted(), L.Conv2D(8, 3)])(x),
    "subclass": lambda x: L.Conv2D(6, 3)(StandardizedConv2D(8, 3, activation="relu")(L.Conv2D(8, 3)(x))),
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
    "arrays as initializers": lambda x: L.Conv2D(6, 3)(L.ReLU()(constant()(x))),
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
    "masked normalization": lambda: text(L.BatchNormalization(), L.Dense(6, activation="relu"), L.LSTM(4)),
    "masked attention": lambda: text(attention),
}


def network(kind):
    if kind in TEXTS:
        return TEXTS[kind]()
    inputs = keras.Input(IMAGES)
    x = ON_IMAGES[kind](inputs)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    return keras.Model(inputs, L.Dense(3)(L.Dense(6, activation="relu")(x)))


SLOW = {
    "masked attention", "stack inside with a call", "model inside by a keyword", "concatenation twice",
    "inputs by name", "adapter of low rank", "no dtype", "subclass of a dense layer",
}  # fmt: skip


@pytest.mark.parametrize("kind", cases([*ON_IMAGES, *TEXTS], slow=SLOW))
def test_outputs_stay_the_same(kind):
    outputs_stay(network(kind))


def outputs_stay(model):
    inserted, found = keras_applications.check(model, fractions=(0.0, 0.5, 1.0))
    assert inserted <= 1e-5 and max(difference for difference, _ in found) <= keras_applications.TOLERANCE


def test_negative_multipliers_are_applied_before_the_activation():
    class Signs(keras.Layer):
        def multiplier(self):
            return np.float32([1, -1, -2, 0])

        def call(self, inputs):
            return inputs * self.multiplier()

    inputs = keras.Input((5,))
    model = keras.Model(inputs, L.Dense(3)(L.ReLU()(Signs()(L.Dense(4)(inputs)))))
    x = keras_applications.examples(model, np.random.default_rng(0), 8)
    assert keras_applications.difference(model, pruning.shrink(model), x) < 1e-5


def test_smaller_networks_are_float32_under_any_global_policy():
    noisy = pruning.insert(network("adapted normalization"))
    keras_applications.kill(noisy, 0.5, np.random.default_rng(0))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        smaller = pruning.shrink(noisy)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in smaller.layers} == {"float32"}


def test_sums_keep_the_shape_of_dead_summands():
    """Of eight units and one for all, the eight dead; of an image and two vectors, the image dead."""
    inputs = keras.Input(IMAGES)
    images = np.random.default_rng(0).normal(size=(2, *IMAGES)).astype(np.float32)
    dead, others = L.Conv2D(8, 1), [L.Conv2D(1, 1), L.Conv2D(8, 8), L.Conv2D(8, 8)]
    for summands in (others[:1], others[1:]):
        x = L.Add()([SBP(name="noise")(dead(inputs)), *(layer(inputs) for layer in summands)])
        model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
        keras_applications.kill(model, 1.0, np.random.default_rng(0))
        assert keras_applications.difference(model, pruning.shrink(model), images) <= keras_applications.TOLERANCE


def test_concatenation_of_keras_ops_passes_on_no_mask():
    inputs = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 8, mask_zero=True)(inputs)
    x = ops.concatenate([L.Dense(8)(x), L.Dense(6)(x)], axis=-1)
    model = keras.Model(inputs, L.Dense(3)(L.LSTM(5)(x)))
    words = np.random.default_rng(1).integers(1, 20, (3, 12))
    words[:, 5:] = 0
    for other in (pruning.insert(model), pruning.shrink(model)):
        assert keras_applications.difference(model, other, words) <= keras_applications.TOLERANCE


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_integer_images_are_rescaled_before_a_convolution(dtype):
    images = np.random.default_rng(0).integers(0, 255, (4, *IMAGES)).astype(dtype)
    inputs = keras.Input(IMAGES, dtype=dtype)
    x = L.Conv2D(8, 3, activation="relu")(L.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 0.5, np.random.default_rng(1))
    smaller = pruning.shrink(noisy)
    np.testing.assert_allclose(smaller.predict(images, verbose=0), noisy(images, training=False), atol=1e-5)


KEEP_THE_DTYPE = {
    "padding": lambda x: L.ZeroPadding2D(1)(x), "cropping": lambda x: L.Cropping2D(2)(x),
    "upsampling": lambda x: L.UpSampling2D()(x), "concatenation": lambda x: L.Concatenate()([x, x]),
    "pooling": lambda x: L.MaxPooling2D()(x), "reshape": lambda x: L.Reshape((4, 16, 3))(x),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEEP_THE_DTYPE)
def test_integer_images_behind_layers_that_keep_their_dtype(kind):
    """Keras's symbolic dtype of these is float32, whatever they read."""
    images = np.random.default_rng(0).integers(0, 256, (4, *IMAGES)).astype("uint8")
    inputs = keras.Input(IMAGES, dtype="uint8")
    x = L.Conv2D(8, 3, activation="relu")(L.Rescaling(1 / 255)(KEEP_THE_DTYPE[kind](inputs)))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalMaxPooling2D()(x)))
    np.testing.assert_allclose(
        pruning.shrink(model).predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "scaling",
    [L.Rescaling(1 / 255), L.Normalization(mean=128.0, variance=5000.0)],
)
def test_fine_tuning_goes_on_where_training_ended(scaling):
    """With the 1 / 255 in the first kernel, one epoch at this rate makes guesses of the predictions."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=512)
    x = rng.uniform(0, 255, (512, *IMAGES)).astype(np.float32)
    x[:, :4] *= np.where(y, 1.0, 0.5)[:, None, None, None]
    inputs = keras.Input(IMAGES)
    features = L.Flatten()(L.Conv2D(8, 3, activation="relu")(scaling(inputs)))
    noisy = pruning.insert(keras.Model(inputs, L.Dense(2)(features)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    noisy.compile(keras.optimizers.Adam(3e-3), loss)
    noisy.fit(x, y, 32, 10, verbose=0)
    keras_applications.kill(noisy, 0.2, rng)
    smaller = pruning.shrink(noisy)
    smaller.compile(keras.optimizers.Adam(1e-3), loss)
    before = smaller.evaluate(x, y, verbose=0)
    during = smaller.fit(x, y, 32, verbose=0).history["loss"][0]
    assert before < 0.3 and max(during, smaller.evaluate(x, y, verbose=0)) < 1.1 * before


def test_text_vectorization_keeps_its_vocabulary():
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
def test_text_vectorization_keeps_its_tf_idf_weights(kind):
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
    ends = [L.Identity(name="class"), L.BatchNormalization(name="box"), L.Rescaling(10.0, name="scaled")]
    model = keras.Model(inputs, [*(end(L.Dense(2)(x)) for end in ends), inner(x)])
    for fraction in (0.0, 1.0):
        noisy = pruning.insert(model)
        keras_applications.kill(noisy, fraction, np.random.default_rng(0))
        assert noisy.output_names == ["class", "box", "scaled", "inner"]
        assert pruning.shrink(noisy).output_names == ["class", "box", "scaled", "inner"]


def test_output_keeps_a_name_that_a_nested_layer_has_too():
    inputs, images = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(inputs, L.Dense(8, name="out", activation="relu")(inputs), name="inner")
    model = keras.Model(images, L.Dense(2, name="out")(inner(images)))
    noisy = pruning.insert(model)
    assert noisy.output_names == pruning.shrink(noisy).output_names == ["out"]
    assert noisy.get_layer("out").units == 2


def test_nested_model_with_two_outputs():
    inputs, images = keras.Input((6,)), keras.Input((6,))
    x = L.Dense(8, activation="relu")(inputs)
    inner = keras.Model(inputs, [L.Dense(2, name="a")(x), L.Dense(3, name="b")(x)], name="inner")
    outputs_stay(keras.Model(images, inner(L.Rescaling(0.5)(images))))


def test_two_nested_models_with_operations_of_the_same_name(tmp_path):
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


def test_units_are_pruned_where_they_enter_nested_models():
    assert set(pruning.unprunable(keras_applications.nested()).values()) == {"output of the network"}


@pytest.mark.parametrize("depth", [1, 2])
def test_nested_models_called_with_training(depth):
    """Monte Carlo dropout: on unless told otherwise."""
    inputs = keras.Input((6,))
    x = L.Dropout(0.5)(L.Dense(16, activation="relu")(inputs))
    inner = keras.Model(inputs, L.TimeDistributed(L.Dropout(0.5))(L.Reshape((4, 4))(x)))
    for _ in range(depth - 1):
        inner = keras.Sequential([keras.Input((6,)), inner])
    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(inner(inputs, training=True))))
    x = np.ones((64, 6), np.float32)
    for network in (pruning.insert(model), pruning.shrink(model)):
        assert np.ptp(network(x), axis=0).min() > 0
        np.testing.assert_allclose(network(x, training=False), model(x, training=False), atol=1e-5)
        dropout = [layer for layer in network.layers if isinstance(layer, (L.Dropout, L.TimeDistributed))]
        calls = [keras_private.arguments(node)[1] for layer in dropout for node in keras_private.calls(layer)]
        assert [call["training"] for call in calls] == [True, True]


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_nested_models_called_with_masks():
    inner = keras.Sequential([keras.Input((12, 8)), L.LSTM(5)])
    words = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 8, mask_zero=True)(words)
    outputs_stay(keras.Model(words, L.Dense(3)(inner(x))))
    mask = keras.Input((12,), dtype="bool")
    with pytest.raises(ValueError, match="is called with mask="):
        pruning.insert(keras.Model([words, mask], L.Dense(3)(inner(x, mask=mask))))


@pytest.mark.parametrize("layer", [L.ZeroPadding2D(1), L.PReLU(shared_axes=[1, 2])])
def test_constants_behind_layers_for_images_of_any_size(layer):
    """Batch normalization makes dead units constants other than 0, whose positions are not known."""
    inputs = keras.Input((None, None, 3))
    norm = L.BatchNormalization(beta_initializer=keras.initializers.Constant(-1.0))
    x = norm(SBP(name="noise")(L.Conv2D(6, 3)(inputs)))
    model = keras.Model(inputs, L.Conv2D(3, 3)(layer(x)))
    keras_applications.kill(model, 0.5, np.random.default_rng(0))
    images = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, pruning.shrink(model), images) <= keras_applications.TOLERANCE


def two_lengths():
    """A question and an answer through the same layers."""
    inputs = [keras.Input((length,), dtype="int32") for length in (6, 9)]
    words, convolution = L.Embedding(50, 8), L.Conv1D(10, 3, activation="relu")
    x = L.Concatenate()([L.GlobalMaxPooling1D()(convolution(words(text))) for text in inputs])
    return keras.Model(inputs, L.Dense(1)(L.Dense(8, activation="relu")(x)))


def two_widths():
    """A PReLU of one slope for all units, of 8 and of 6."""
    inputs, slope = keras.Input(IMAGES), L.PReLU(shared_axes=[1, 2, 3])
    x = slope(L.Conv2D(6, 1)(slope(L.Conv2D(8, 1)(inputs))))
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


@pytest.mark.parametrize("build", [two_lengths, two_widths])
def test_layers_shared_by_inputs_of_different_widths(build):
    outputs_stay(build())
    assert all(cost > 0 for cost in counting.unit_costs(pruning.insert(build())).values())


def test_dropout_is_kept_also_if_it_is_always_on():
    inputs = keras.Input((6,))
    x = L.Dropout(0.5, name="first")(L.Dense(50, activation="relu")(inputs), training=True)
    x = L.Dropout(0.5, name="second")(L.Dense(50, activation="relu")(x))
    smaller = pruning.shrink(pruning.insert(keras.Model(inputs, L.Dense(3)(x))))
    assert [layer.name for layer in smaller.layers if isinstance(layer, L.Dropout)] == ["first", "second"]
    assert np.abs(smaller(np.ones((1, 6))) - smaller(np.ones((1, 6)))).max() > 0


def test_fine_tuning_at_a_learning_rate_of_zero_changes_nothing():
    """Constraints were meant for kernels without theta and batch normalization in them."""
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


def test_take_from_an_axis_of_unknown_length():
    inputs = keras.Input((None,))
    model = keras.Model(inputs, L.Dense(2)(ops.take(inputs, [2, 5, 1], axis=-1)))
    x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    np.testing.assert_allclose(pruning.shrink(model)(x), model(x), atol=1e-6)


@pytest.mark.parametrize("function", [ops.relu, keras.activations.relu, ops.gelu, ops.tanh, ops.square])
def test_units_are_pruned_through_keras_functions(function):
    inputs = keras.Input((8, 8, 3))
    x = ops.add(function(L.Conv2D(8, 3, name="one")(inputs)), function(L.Conv2D(8, 3, name="two")(inputs)))
    model = keras.Model(inputs, L.Dense(3, name="last")(L.GlobalAveragePooling2D()(x)))
    assert list(pruning.unprunable(model)) == ["last"]
    outputs_stay(model)
    (noise,) = fit.noise_layers(noisy := pruning.insert(model))
    noise.mu.assign([-20.0] * 6 + [-0.1] * 2)
    noise.log_sigma.assign([5.0] * 6 + [-4.0] * 2)
    assert counting.units(pruning.shrink(noisy)) == {"one": 2, "two": 2, "last": 3}


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_error_for_a_quantized_network():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, activation="relu"), L.Dense(3, name="last")])
    model.quantize("int8")
    for prune in (pruning.insert, pruning.shrink):
        with pytest.raises(ValueError, match="last: already quantized. Prune first"):
            prune(model)


def test_error_for_quantized_layers_in_attention():
    inputs, attention = keras.Input((6, 8)), L.MultiHeadAttention(2, 4, name="attention")
    x = L.Dense(8)(inputs)
    model = keras.Model(inputs, L.Dense(3)(attention(x, x)))
    for layer in keras_private.inner_layers(attention):
        if isinstance(layer, L.EinsumDense):
            layer.quantize("int8")
    for prune in (pruning.insert, pruning.shrink):
        with pytest.raises(ValueError, match="attention: already quantized"):
            prune(model)


def test_error_for_a_network_with_its_own_call():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="has a call\\(\\) of its own"):
        pruning.insert(Twice(inputs, L.Dense(5)(inputs)))
    with pytest.raises(ValueError, match="has a call\\(\\) of its own"):
        pruning.insert(Residual([inputs, L.Dense(6)]))


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.Model):
    """A functional network that scales its loss, by a setting of its own."""

    def __init__(self, *args, factor=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def compute_loss(self, *args, **kwargs):
        return self.factor * super().compute_loss(*args, **kwargs)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class ScaledStack(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


class ScaledByDefault(Scaled):
    """Which says nothing of how to build it."""

    def __init__(self, units):
        inputs = keras.Input((6,))
        super().__init__(inputs, L.Dense(2)(L.Dense(units, activation="relu")(inputs)), factor=3.0)


class ScaledByKeyword(Scaled):
    """Which Keras does not take for a functional model's class."""

    def __init__(self, inputs, outputs, factor, name=None):
        super().__init__(inputs, outputs, factor=factor, name=name)


@pytest.mark.parametrize("kind", cases([Scaled, ScaledByKeyword], slow={Scaled}))
def test_models_with_their_own_training_keep_their_class(kind):
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu")])
    model = kind(inputs, L.Dense(2)(inner(inputs)), factor=3.0, name="scaled")
    x, y = np.ones((8, 6)), np.zeros((8, 2))
    for network in (pruning.insert(model), pruning.shrink(model), pruning.pad_filters(model, 8)):
        plain = keras.Model(network.inputs, network.outputs)
        for each in (network, plain):
            each.compile("sgd", "mse")
        assert type(network) is kind and network.name == "scaled"
        assert network.evaluate(x, y, verbose=0) == pytest.approx(3 * plain.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("build", [lambda: ScaledStack([keras.Input((6,)), L.Dense(2)]), lambda: ScaledByDefault(5)])
def test_error_for_models_whose_own_training_cannot_be_kept(build):
    for prune in (pruning.insert, pruning.shrink):
        with pytest.raises(ValueError, match="has its own compute_loss.*pass keras.Model\\("):
            prune(build())
    assert counting.multiply_adds(build()) > 0


def test_classes_without_training_of_their_own_become_plain_models():
    class Backbone(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((6,))
            super().__init__(inputs, L.Dense(2)(L.Dense(units, activation="relu")(inputs)))

    assert not isinstance(pruning.insert(Backbone(5)), Backbone)


def test_a_batch_of_fixed_size_is_pruned_as_any_other():
    inputs = keras.Input(batch_shape=(8, *IMAGES))
    x = L.Reshape((-1, 8))(L.Conv2D(8, 3, activation="relu")(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Dense(6, activation="relu")(L.Flatten()(x))))
    assert list(pruning.unprunable(model)) == [model.layers[-1].name]
    outputs_stay(model)


def test_an_activation_may_join_units_far_from_one():
    def clip_norm(x):
        return x * ops.minimum(1.0, 10.0 / ops.norm(x, axis=-1, keepdims=True))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, L.Dense(3)(L.Dense(8, activation=clip_norm, name="clipped")(inputs)))
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 0.5, np.random.default_rng(0))
    x = 20 * np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    assert keras_applications.difference(noisy, pruning.shrink(noisy), x) <= keras_applications.TOLERANCE


def in_time(branch):
    """A residual branch that is called on the words of a text, one by one."""
    step, text = keras.Input((4,)), keras.Input((5, 4))
    inner = keras.Model(step, branch(step))
    return keras.Model(text, L.Dense(3)(L.Flatten()(L.TimeDistributed(inner)(text))))


def residual(x):
    return L.Add()([x, L.Dense(4, bias_initializer="ones")(L.Dense(5, activation="relu")(x))])


def gated(x):
    return L.Multiply()([x, L.Dense(4, bias_initializer="ones")(L.Dense(5, activation="relu")(x))])


def words_as_examples():
    text = keras.Input((5, 4))
    words = ops.reshape(text, (-1, 4))
    return keras.Model(text, L.Dense(3)(L.Flatten()(ops.reshape(residual(words), (-1, 5, 4)))))


@pytest.mark.parametrize("build", [lambda: in_time(residual), lambda: in_time(gated), words_as_examples])
def test_a_dead_branch_whose_examples_are_positions(build):
    outputs_stay(build())


@pytest.mark.parametrize("activation", [lambda x: ops.softmax(x, axis=-2), L.Softmax(axis=-2)])
def test_activations_that_mix_positions(activation):
    inputs = keras.Input((5, 6))
    x = L.Dense(8)(inputs)
    outputs_stay(keras.Model(inputs, [L.Dense(3)(L.Activation(activation)(x)), L.Dense(3)(x)]))


def test_a_sum_over_positions_after_a_normalization():
    inputs = keras.Input((5, 6))
    x = L.LayerNormalization(beta_initializer="ones")(L.Dense(8)(inputs))
    outputs_stay(keras.Model(inputs, L.EinsumDense("abc,cd->ad", output_shape=3)(x)))


def test_an_input_that_is_not_a_number_stays_alone():
    """A dead branch is a constant, also where the input is NaN."""
    inputs = keras.Input((6,))
    x = ops.nan_to_num(inputs)
    branch = L.Dense(6, bias_initializer="ones")(L.Dense(8, activation="relu")(x))
    noisy = pruning.insert(keras.Model(inputs, L.Dense(3)(L.Add()([x, branch]))))
    keras_applications.kill(noisy, 1.0, np.random.default_rng(0))
    given = np.ones((4, 6), np.float32)
    given[0, 0] = np.nan
    np.testing.assert_allclose(pruning.shrink(noisy)(given), noisy(given), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [L.Dense(8), L.Embedding(10, 8)])
def test_lora_with_an_alpha_that_a_copy_would_lose(layer):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(layer(inputs))))
    layer.enable_lora(2, lora_alpha=8)
    with pytest.raises(ValueError, match="lora_alpha"):
        pruning.insert(model)


def test_a_weight_that_is_read_outside_of_its_layer():
    inputs, table = keras.Input((5,)), L.Embedding(10, 8)
    model = keras.Model(inputs, ops.einsum("btc,vc->btv", table(inputs), table.embeddings))
    for function in (pruning.insert, pruning.shrink):
        with pytest.raises(ValueError, match="read outside of it"):
            function(model)


@pytest.mark.parametrize("key", [np.s_[:, None], np.s_[:, None, :, None], np.s_[..., None, :], np.s_[:, None, 1:4]])
def test_new_axes_by_an_index(key):
    """As by expand_dims, so that the units before are pruned."""
    inputs = keras.Input((5, 6))
    x = L.Dense(8, activation="relu", name="before")(inputs)[key]
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Dense(4)(x))))
    assert "before" not in pruning.unprunable(model)
    outputs_stay(model)


@pytest.mark.parametrize("chosen", [lambda mask, x: ops.where(mask, x, 0), lambda mask, x: ops.where(mask, -1.5, x)])
def test_a_choice_between_a_tensor_and_a_number(chosen):
    inputs = keras.Input((5, 6))
    x = L.Dense(8, activation="relu", name="before")(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Dense(4)(chosen(inputs[..., :1] > 0, x)))))
    assert "before" not in pruning.unprunable(model)
    outputs_stay(model)


@pytest.mark.parametrize("pooling", [L.AdaptiveAveragePooling2D(3), L.AdaptiveMaxPooling2D((2, 3))])
def test_pooling_to_a_size(pooling):
    inputs = keras.Input(IMAGES)
    x = pooling(L.Conv2D(6, 3, activation="sigmoid", name="before")(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Conv2D(4, 2)(x))))
    assert "before" not in pruning.unprunable(model)
    outputs_stay(model)
