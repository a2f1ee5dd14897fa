"""Shrinking: random networks, dead units and zeros, against the network as it was and the paths through its units."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras.layers import Conv2D, Dense, Flatten

from keras_sbp.layers.sbp import SBP
from keras_sbp.nets.lenet5 import lenet5
from keras_sbp.nets.lenet_fc import lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting

TOLERANCE = 1e-4
WEIGHTED = (Conv2D, Dense)


@keras.saving.register_keras_serializable(package="test_pruning")
class Noise(layers.Layer):
    """As much of a noise layer as shrink knows, and quicker than SBP."""

    def build(self, input_shape):
        self.theta = self.add_weight(shape=input_shape[-1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.theta

    def multiplier(self):
        return keras.ops.convert_to_tensor(self.theta)


def small_lenet5(unit):
    inputs = keras.Input((8, 8, 3))
    x = Conv2D(4, 3, activation="relu")(inputs)
    x = unit(name="conv1_unit")(x)
    x = layers.MaxPooling2D()(x)
    x = Conv2D(5, 2, activation="relu")(x)
    x = unit(name="conv2_unit")(x)
    x = Flatten()(x)
    x = unit(name="features_unit")(x)
    x = Dense(8, activation="relu")(x)
    x = unit(name="dense1_unit")(x)
    return keras.Model(inputs, Dense(4)(x))


def small_lenet_fc(unit):
    x = [Flatten(), unit(name="pixels_unit"), Dense(9, activation="relu"), unit(name="dense1_unit")]
    y = [Dense(7, activation="relu"), unit(name="dense2_unit"), Dense(4)]
    return keras.Sequential([keras.Input((4, 4, 1)), *x, *y])


@pytest.fixture(scope="module")
def network():
    """The LeNets by name, each built once: a test sets all its weights."""
    nets = {"small_lenet5": (small_lenet5, Noise), "small_lenet_fc": (small_lenet_fc, Noise)}
    nets.update(lenet5=(lenet5, SBP), lenet_fc=(lenet_fc, SBP))

    @functools.cache
    def build(name):
        net, unit = nets[name]
        return net(unit)

    return build


def random_network(rng):
    """A small network of any layers that shrink knows, with one head or two."""

    def some(x, *kinds):
        for kind in rng.permutation(len(kinds))[: rng.integers(4)]:
            x = kinds[kind]()(x)
        return x

    def between(x):
        shape = x.shape[1:-1]
        kinds = [Noise, Noise, layers.BatchNormalization, layers.ReLU, layers.Identity, lambda: layers.Dropout(0.5)]
        kinds.append(lambda: layers.Activation(str(rng.choice(["relu", "tanh", "sigmoid", "linear"]))))
        if shape and min(shape) > 1:
            kinds.append(lambda: [layers.AveragePooling2D, layers.MaxPooling2D][rng.integers(2)](2))
        return some(x, *kinds)

    def dense(x, units):
        return Dense(units, use_bias=bool(rng.integers(2)), activation=str(rng.choice(["linear", "relu"])))(x)

    x = inputs = keras.Input((8, 8, int(rng.choice([1, 3]))))
    for _ in range(rng.choice([0, 1, 2, 2])):
        strides, dilation = [(1, 1), (2, 1), (1, 2)][rng.integers(3)]
        x = Conv2D(
            int(rng.integers(2, 6)),
            int(rng.integers(1, 4)),
            strides,
            padding="same" if x.shape[1] < 5 else str(rng.choice(["same", "valid"])),
            dilation_rate=dilation,
            use_bias=bool(rng.integers(2)),
            activation=str(rng.choice(["linear", "relu", "tanh"])),
        )(x)
        x = between(x)
    if rng.integers(2):
        x = between(dense(x, 5))
    x = Flatten()(x) if rng.integers(2) else layers.GlobalAveragePooling2D()(x)
    x = between(x)
    return keras.Model(inputs, [Dense(4)(between(dense(x, 6))) for _ in range(rng.integers(1, 3))])


def noises(model):
    return [layer for layer in model.layers if isinstance(layer, (Noise, SBP))]


def kill(layer, dead, rng):
    """These units of a noise layer are dead now, the others alive."""
    if isinstance(layer, SBP):
        layer.mu.assign(np.where(dead, -20.0, rng.uniform(-1, 0.5, len(dead))))
        layer.log_sigma.assign(np.where(dead, 5.0, rng.uniform(-5, -3, len(dead))))
    else:
        layer.theta.assign(np.where(dead, 0.0, rng.uniform(0.3, 2, len(dead))))


def draw_dead(model, rng):
    shares = rng.choice([0, 0.3, 0.6, 0.9, 1], size=len(noises(model)), p=[0.3, 0.3, 0.2, 0.15, 0.05])
    return {layer.name: rng.random(layer.input.shape[-1]) < share for layer, share in zip(noises(model), shares)}


def draw_weights(model, rng, zeros=0.0):
    """Random weights and statistics, and units dead; a share of the filters, of the inputs and of the weights is 0."""
    dead = draw_dead(model, rng)
    for layer in model.layers:
        if isinstance(layer, (Noise, SBP)):
            kill(layer, dead[layer.name], rng)
        elif isinstance(layer, WEIGHTED):
            kernel = rng.normal(size=layer.kernel.shape) / np.sqrt(np.prod(layer.kernel.shape[:-1]))
            for shape in (kernel.shape[-1:], kernel.shape[-2:-1] + (1,), kernel.shape):
                kernel *= rng.random(shape) >= zeros
            layer.set_weights([kernel, *(rng.normal(size=weight.shape) for weight in layer.weights[1:])])
        elif isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = rng.normal(size=(4, layer.input.shape[-1]))
            layer.set_weights([gamma, beta, mean, variance**2 + 0.5])
    return model


def paths(model):
    """The multiply-adds of the units of a chain of layers that a path leads through, from the inputs to the logits."""
    chain = model.layers
    chain = chain if isinstance(chain[0], layers.InputLayer) else [None, *chain]
    links = []
    for layer in chain[1:]:
        width = layer.input.shape[-1]
        if isinstance(layer, (Noise, SBP)):
            links.append(np.diag(np.not_equal(layer.multiplier(), 0)))
        elif isinstance(layer, WEIGHTED):
            links.append(layer.kernel.numpy().any(axis=tuple(range(len(layer.kernel.shape) - 2))))
        elif isinstance(layer, Flatten):
            links.append(np.tile(np.eye(width), layer.output.shape[-1] // width))
        else:
            links.append(np.eye(width))
    into, out_of = [np.ones(len(links[0]))], [np.ones(links[-1].shape[1])]
    for link in links:
        into.append(into[-1] @ link)
    for link in reversed(links):
        out_of.insert(0, link @ out_of[0])
    into[-1] = np.ones(len(into[-1]))
    live = [np.count_nonzero(a * b) for a, b in zip(into, out_of)]
    return sum(
        int(np.prod(layer.output.shape[1:-1]) * np.prod(layer.kernel.shape[:-2])) * inputs * outputs
        for layer, inputs, outputs in zip(chain[1:], live, live[1:])
        if isinstance(layer, WEIGHTED)
    )


def images(model, count=8):
    found = [np.random.default_rng(0).random((count, *x.shape[1:]), np.float32) for x in model.inputs]
    return found if len(found) > 1 else found[0]


def outputs(model):
    return [np.asarray(output, np.float32) for output in keras.tree.flatten(model(images(model)))]


def difference(model, other):
    """The largest between the outputs of two networks, relative to the outputs' scale."""
    pairs = list(zip(outputs(model), outputs(other), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30) for a, b in pairs)


def shrunk(model):
    """What shrink makes of a model, once it holds what shrink promises of any."""
    smaller = pruning.shrink(model)
    assert difference(model, smaller) <= TOLERANCE
    names = [tensor._keras_history.operation.name for tensor in model.outputs]
    for op in smaller.operations:
        assert type(op).__module__.startswith("keras.")
        # One that is left only gives an output the name that it had.
        assert not isinstance(op, layers.Identity) or op.name in names
    return smaller


@pytest.mark.parametrize("zeros", [0, 0.15])
@pytest.mark.parametrize("name, count", [("lenet5", 6), ("lenet_fc", 6), ("small_lenet5", 50), ("small_lenet_fc", 30)])
def test_lenets(network, name, count, zeros):
    expected = []
    for seed in range(count):
        model = draw_weights(network(name), np.random.default_rng(seed), zeros)
        expected.append(paths(model))
        assert counting.multiply_adds(shrunk(model)) == expected[-1], seed
    assert len(set(expected)) > count / 3


@pytest.mark.parametrize("name", ["lenet5", "lenet_fc"])
@pytest.mark.parametrize("left", [0, 1])
def test_lenets_with_a_layer_of_at_most_one_unit(network, name, left):
    rng = np.random.default_rng(left)
    for narrow in noises(network(name)):
        model = draw_weights(network(name), rng)
        for layer in noises(model):
            kill(layer, (np.arange(layer.input.shape[-1]) >= left) & (layer is narrow), rng)
        smaller = shrunk(model)
        assert counting.multiply_adds(smaller) == paths(model)
        assert left or counting.multiply_adds(smaller) == 0
        assert left or np.ptp(smaller(images(smaller)), axis=0).max() == 0


@pytest.mark.parametrize("seed", range(70))
def test_any_network(seed):
    rng = np.random.default_rng(seed)
    model = draw_weights(random_network(rng), rng, zeros=rng.choice([0, 0.15]))
    smaller = shrunk(model)
    assert counting.multiply_adds(smaller) <= counting.multiply_adds(model)
    if seed % 2:
        again = shrunk(smaller)
        assert counting.multiply_adds(again) == counting.multiply_adds(smaller)
        assert difference(model, again) <= TOLERANCE


def chain(shape, *middle):
    return keras.Sequential([keras.Input(shape), *middle, Dense(4)])


@pytest.mark.parametrize(
    "shape, middle",
    [
        ((8, 8, 3), [Conv2D(6, 3, padding="same"), Noise(), Conv2D(5, 3, padding="same"), Flatten()]),
        ((8, 8, 3), [Conv2D(6, 3, 2), layers.BatchNormalization(), layers.ReLU(), Noise(), Flatten()]),
        ((8, 8, 3), [Conv2D(6, 3, dilation_rate=2), Noise(), layers.BatchNormalization(), Flatten()]),
        ((8, 8, 3), [Conv2D(6, 3), Noise(), layers.Activation("sigmoid"), layers.AveragePooling2D(2), Flatten()]),
        ((8, 8, 3), [Conv2D(6, 3), Noise(), layers.Activation("tanh"), layers.GlobalAveragePooling2D()]),
        ((8, 8, 3), [Conv2D(6, 3, use_bias=False), Noise(), layers.Dropout(0.5), Flatten()]),
        ((4, 3), [Dense(6), Noise(), Dense(5, "relu"), Noise(), Flatten()]),
        ((7,), [Dense(6), Noise(), layers.Identity(), Dense(5, "relu"), Noise()]),
    ],
)
def test_a_chain_keeps_what_has_a_path(shape, middle):
    model = chain(shape, *middle)
    for seed in range(4):
        draw_weights(model, np.random.default_rng(seed))
        smaller = shrunk(model)
        assert counting.multiply_adds(smaller) == counting.multiply_adds(shrunk(smaller)) == paths(model)


def test_two_heads_keep_what_either_reads():
    rng = np.random.default_rng(0)
    inputs = keras.Input((7,))
    trunk = Dense(6, "relu")(inputs)
    model = keras.Model(inputs, [Dense(4)(Noise(name=name)(trunk)) for name in ("left", "right")])
    draw_weights(model, rng)
    kill(model.get_layer("left"), np.array([0, 0, 1, 1, 1, 1], bool), rng)
    kill(model.get_layer("right"), np.array([1, 0, 0, 1, 1, 1], bool), rng)
    assert counting.multiply_adds(shrunk(model)) == 7 * 3 + 2 * 4 + 2 * 4
    assert [shape[0] for shape in counting.kernels(pruning.shrink(model)).values()] == [7, 2, 2]
    kill(model.get_layer("left"), np.ones(6, bool), rng)
    assert counting.multiply_adds(shrunk(model)) == 7 * 2 + 2 * 4


def test_a_color_that_is_not_read():
    model = draw_weights(chain((8, 8, 3), Conv2D(6, 3), Flatten()), np.random.default_rng(0))
    kernel, bias = model.layers[0].get_weights()
    kernel[:, :, 1] = 0
    model.layers[0].set_weights([kernel, bias])
    smaller = shrunk(model)
    assert smaller.layers[0].output.shape == (None, 8, 8, 3)
    assert counting.kernels(smaller)[model.layers[0].name] == (3, 3, 2, 6)


def test_a_filter_of_zeros_is_its_bias():
    model = chain((8, 8, 1), Conv2D(6, 3, activation="sigmoid"), Conv2D(5, 3), Flatten())
    draw_weights(model, np.random.default_rng(0))
    kernel, bias = model.layers[0].get_weights()
    kernel[..., 2:] = 0
    model.layers[0].set_weights([kernel, bias])
    assert [shape[-1] for shape in counting.kernels(shrunk(model)).values()] == [2, 5, 4]


def test_a_constant_that_padding_makes_uneven():
    rng = np.random.default_rng(0)
    uneven = [Conv2D(6, 3), Noise(), layers.BatchNormalization(), Conv2D(5, 3, padding="same"), Noise(), Flatten()]
    model = draw_weights(chain((8, 8, 1), *uneven), rng)
    for dead in ([1, 1, 0, 0, 0, 0], [1] * 6):
        kill(model.layers[1], np.array(dead, bool), rng)
        kill(model.layers[4], np.array([1, 0, 0, 0, 0], bool), rng)
        smaller = shrunk(model)
        assert counting.multiply_adds(smaller) == counting.multiply_adds(shrunk(smaller))
    assert counting.multiply_adds(smaller) == 0


@pytest.mark.parametrize(
    "last", [[Dense(4)], [Dense(4), Flatten()], [Conv2D(4, 3, padding="same"), layers.GlobalAveragePooling2D()], []]
)
def test_a_constant_keeps_its_shape(last):
    model = keras.Sequential([keras.Input((8, 8, 1)), Conv2D(3, 3), Noise(), layers.BatchNormalization(), *last])
    draw_weights(model, np.random.default_rng(0))
    kill(model.layers[1], np.ones(3, bool), np.random.default_rng(0))
    smaller = shrunk(shrunk(model))
    assert counting.multiply_adds(smaller) == 0


def test_new_layers_have_names_of_their_own():
    """A network from a file brings names that Keras would give again."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 4, 1))
    x = Flatten(name="flatten")(inputs)
    x = layers.Activation("tanh", name="rescaling_1")(Noise(name="rescaling")(Dense(5)(x)))
    model = keras.Model(inputs, [Dense(2)(layers.ReLU()(Noise(name=name)(x))) for name in "ab"])
    draw_weights(model, rng)
    kill(model.get_layer("rescaling"), np.arange(5) == 0, rng)
    kill(model.get_layer("a"), np.arange(5) == 1, rng)
    kill(model.get_layer("b"), np.ones(5, bool), rng)
    keras.utils.clear_session()
    shrunk(shrunk(model))


def test_normalisation_that_is_put_back_is_the_identity_and_goes_again():
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(Conv2D(6, 3, padding="same", name="first")(inputs))
    x = layers.Add()([x, Conv2D(6, 3, padding="same", name="second")(x)])
    model = keras.Model(inputs, Dense(4)(layers.GlobalAveragePooling2D()(x)))
    draw_weights(model, rng)
    given = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    put_back = pruning.insert_batch_norm(model, given)
    expected = model(given)
    np.testing.assert_allclose(put_back(given, training=False), expected, atol=1e-4)
    # In training, by the statistics of the same images: those that were put in.
    np.testing.assert_allclose(put_back(given, training=True), expected, atol=2e-3)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in put_back.layers) == 2
    again = pruning.shrink(put_back)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in again.layers)
    np.testing.assert_allclose(again(given), expected, atol=1e-4)


def test_a_convolution_in_several_places_gets_no_normalisation():
    inputs, twice = keras.Input((8, 8, 3)), Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(inputs, Conv2D(4, 3, name="last")(twice(layers.ReLU()(twice(inputs)))))
    put_back = pruning.insert_batch_norm(draw_weights(model, np.random.default_rng(0)), images(model))
    assert difference(model, put_back) <= 1e-4
    norms = [layer.name for layer in put_back.layers if isinstance(layer, layers.BatchNormalization)]
    assert norms == ["last_norm"]


@pytest.mark.parametrize("seed", range(10))
def test_convolutions_filled_up_with_zeros_compute_the_same(seed):
    rng = np.random.default_rng(seed)
    smaller = pruning.shrink(draw_weights(random_network(rng), rng, zeros=0.15))
    wide = pruning.pad_filters(smaller, 8)
    assert difference(smaller, wide) <= TOLERANCE
    assert {layer.filters for layer in wide.layers if isinstance(layer, Conv2D)} <= {8}
    assert wide.output_shape == smaller.output_shape


def from_the_mean(x):
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("activation", ["relu", "softmax", "sparsemax", from_the_mean])
def test_what_is_of_all_units_together_is_not_filled_up(activation):
    """A softmax of zeros is not 0, and they change the others; and a network gives as many values as before."""
    inputs = keras.Input((8, 8, 3))
    x = Conv2D(5, 3, activation=activation, name="first")(inputs)
    x = layers.Softmax()(Conv2D(6, 3, groups=1, name="second")(x))
    grouped = Conv2D(6, 3, groups=2, name="grouped")(x)
    model = draw_weights(keras.Model(inputs, [Conv2D(3, 1, name="map")(x), grouped]), np.random.default_rng(0))
    wide = pruning.pad_filters(model, 4)
    assert difference(model, wide) <= TOLERANCE
    filters = {layer.name: layer.filters for layer in wide.layers if isinstance(layer, Conv2D)}
    assert filters == {"first": 8 if activation == "relu" else 5, "second": 8, "grouped": 6, "map": 4}
    assert [tensor.shape[-1] for tensor in wide.outputs] == [3, 6]


def test_a_sum_of_units_and_one_for_all_stays_what_it_is_when_filled_up():
    inputs = keras.Input((8, 8, 3))
    x = layers.Add()([Conv2D(5, 3)(inputs), Conv2D(1, 3)(inputs)])
    model = draw_weights(keras.Model(inputs, Conv2D(4, 3)(x)), np.random.default_rng(0))
    assert difference(model, pruning.pad_filters(model, 8)) <= TOLERANCE


def test_a_layer_in_several_places_is_filled_up_if_it_has_no_weights():
    inputs = keras.Input((8, 8, 3))
    relu, twice = layers.ReLU(), Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(inputs, Dense(2)(relu(Dense(4)(Flatten()(relu(Conv2D(6, 3)(relu(Conv2D(5, 3)(inputs)))))))))
    assert difference(draw_weights(model, np.random.default_rng(0)), pruning.pad_filters(model, 8)) <= TOLERANCE
    with pytest.raises(ValueError, match="has twice in several places"):
        pruning.pad_filters(keras.Model(inputs, twice(twice(inputs))), 8)


def test_mixed_precision_becomes_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = draw_weights(small_lenet5(SBP), np.random.default_rng(1))
    finally:
        keras.config.set_dtype_policy("float32")
    smaller = pruning.shrink(model)
    assert {layer.compute_dtype for layer in smaller.layers[1:]} == {"float32"}
    assert difference(model, smaller) <= 0.05


def test_it_loads_without_our_code(tmp_path):
    rngs = [np.random.default_rng(seed) for seed in range(12)]
    models = [draw_weights(random_network(rng), rng, zeros=0.2) for rng in rngs] + [lenet5(SBP), lenet_fc(SBP)]
    kill(models[-1].get_layer("dense1_unit"), np.ones(500, bool), rngs[0])
    for i, model in enumerate(models):
        smaller = pruning.shrink(model)
        smaller.save(tmp_path / f"{i}.keras")
        np.savez(tmp_path / f"{i}.npz", images(smaller), *outputs(smaller))
    script = """
import importlib.util, pathlib, keras, numpy as np
assert not any(importlib.util.find_spec(name) for name in ("layers", "nets", "utils"))
paths = list(pathlib.Path().glob("*.keras"))
for path in paths:
    images, *expected = np.load(path.with_suffix(".npz")).values()
    outputs = keras.tree.flatten(keras.models.load_model(path)(images))
    for a, b in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
print(len(paths))
"""
    run = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(models)


ODD = {
    "layer normalisation": lambda x: layers.LayerNormalization(name="odd")(x),
    "softmax": lambda x: layers.Softmax(name="odd")(x),
    "softmax as an activation": lambda x: layers.Activation("softmax", name="odd")(x),
    "another axis": lambda x: layers.BatchNormalization(axis=1, name="odd")(x),
    "groups": lambda x: layers.GroupNormalization(2, name="odd")(x),
    "side by side, but not the units": lambda x: layers.Concatenate(1, name="odd")([x, x]),
    "an op": lambda x: keras.ops.cumsum(x, axis=-1),
    "another order": lambda x: layers.Permute((3, 1, 2), name="odd")(x),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_kind_without_a_rule_keeps_what_it_reads_and_gives(odd):
    """The four filters that it reads stay, dead or not; those on either side of them are pruned."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 2))
    x = Noise(name="before")(Conv2D(6, 3, activation="relu", name="first")(inputs))
    x = Noise(name="read")(Conv2D(4, 3, activation="relu", name="second")(x))
    x = Noise(name="given")(Conv2D(5, 1, activation="relu", name="third")(ODD[odd](x)))
    model = draw_weights(keras.Model(inputs, Dense(4)(Flatten()(x))), rng)
    for name, units in ("before", 6), ("read", 4), ("given", 5):
        kill(model.get_layer(name), np.arange(units) < 2, rng)
    kernels = counting.kernels(shrunk(model))
    assert kernels["first"] == (3, 3, 2, 4) and kernels["second"] == (3, 3, 4, 4)
    assert kernels["third"][-1] == 3
    kill(model.get_layer("given"), np.ones(5, bool), rng)
    assert counting.multiply_adds(shrunk(model)) == 0


@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_a_softmax_at_the_end_keeps_its_units(activation):
    model = chain((7,), Dense(6, "relu"), Noise(), Dense(5, activation), layers.Rescaling(2.0))
    draw_weights(model, np.random.default_rng(0))
    kill(model.layers[1], np.arange(6) < 4, np.random.default_rng(0))
    assert list(counting.kernels(shrunk(model)).values()) == [(7, 2), (2, 5), (5, 4)]


def test_a_layer_in_several_places_has_the_same_units_in_all_of_them():
    rng = np.random.default_rng(0)
    inputs = [keras.Input((7,), name=name) for name in "ab"]
    shared, noise = Dense(6, "relu", name="shared"), Noise(name="noise")
    left, right = (noise(shared(x)) for x in inputs)
    right = Noise(name="right")(right)
    tail = Dense(5, "relu", name="tail")
    model = keras.Model(inputs, [Dense(3, name="one")(tail(left)), Dense(2, name="two")(tail(right))])
    draw_weights(model, rng)
    kill(model.get_layer("noise"), np.arange(6) < 1, rng)
    kill(model.get_layer("right"), np.arange(6) < 4, rng)
    kernels = counting.kernels(shrunk(model))
    assert kernels == {"shared": (7, 5), "tail": (5, 5), "one": (5, 3), "two": (5, 2)}
    kill(model.get_layer("right"), np.ones(6, bool), rng)
    shrunk(model)


def test_a_layer_after_itself():
    inputs, twice = keras.Input((4,)), Dense(4, "relu", name="twice")
    model = keras.Model(inputs, Dense(3)(Noise()(twice(twice(inputs)))))
    for seed in range(5):
        shrunk(draw_weights(model, np.random.default_rng(seed), zeros=0.3))


def test_a_model_without_a_graph_is_named():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="own is a subclass"):
        pruning.shrink(Own(name="own"))


def taken_out(model, dead, rng):
    """The smaller network in training, with the weights of the model, where the dead are dead by now."""
    smaller, origin = pruning.remove_units(model, dead)
    for layer in noises(model):
        kill(layer, dead[layer.name], rng)
    for new, old, index, _ in origin:
        new.assign(old.numpy()[index])
    assert {id(new) for new, *_ in origin} == {id(weight) for weight in smaller.weights}
    assert [layer.name for layer in noises(smaller)] == [layer.name for layer in noises(model)]
    assert all(layer.input.shape[-1] > 0 for layer in noises(smaller))
    assert difference(model, smaller) <= TOLERANCE
    assert counting.multiply_adds(shrunk(smaller)) == counting.multiply_adds(shrunk(model))
    return smaller


def draw_alive(model, rng):
    draw_weights(model, rng)
    for layer in noises(model):
        kill(layer, np.zeros(layer.input.shape[-1], bool), rng)


@pytest.mark.parametrize("name, count", [("lenet5", 2), ("lenet_fc", 2), ("small_lenet5", 8), ("small_lenet_fc", 8)])
def test_take_out_of_lenets(network, name, count):
    for seed in range(count):
        model, rng = network(name), np.random.default_rng(seed)
        draw_alive(model, rng)
        dead = draw_dead(model, rng)
        smaller = taken_out(model, dead, rng)
        if paths(model):
            assert counting.multiply_adds(smaller) == paths(model)


@pytest.mark.parametrize("seed", range(15))
def test_take_out_of_any_network(seed):
    rng = np.random.default_rng(seed)
    model = random_network(rng)
    draw_alive(model, rng)
    taken_out(model, draw_dead(model, rng), rng)


def test_take_out_of_layers_whose_living_units_miss_one_another(network):
    model, rng = network("lenet5"), np.random.default_rng(0)
    draw_alive(model, rng)
    dead = {layer.name: np.zeros(layer.input.shape[-1], bool) for layer in noises(model)}
    dead["conv2_unit"] = np.arange(50) > 0
    dead["features_unit"] = np.arange(800) % 50 == 0
    taken_out(model, dead, rng)
    dead["conv2_unit"][:] = True
    taken_out(model, dead, rng)


def test_take_out_leaves_the_model_and_goes_on(network):
    """Some of the dead now, the others later: as all at once."""
    model, rng = network("small_lenet5"), np.random.default_rng(3)
    draw_weights(model, rng)
    dead = {layer.name: np.equal(layer.multiplier(), 0) for layer in noises(model)}
    first = {name: units & (rng.random(len(units)) < 0.5) for name, units in dead.items()}
    before = [weight.numpy() for weight in model.weights]
    half, origin = pruning.remove_units(model, first)
    for new, old, index, _ in origin:
        new.assign(old.numpy()[index])
    rest = {layer.name: np.equal(layer.multiplier(), 0) for layer in noises(half)}
    smaller, origin = pruning.remove_units(half, rest)
    for new, old, index, _ in origin:
        new.assign(old.numpy()[index])
    assert difference(model, half) <= TOLERANCE
    assert difference(model, smaller) <= TOLERANCE
    assert (
        counting.multiply_adds(smaller) == paths(model) < counting.multiply_adds(half) < counting.multiply_adds(model)
    )
    assert all(np.array_equal(weight.numpy(), was) for weight, was in zip(model.weights, before))
