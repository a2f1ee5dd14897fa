"""Shrinking: random networks, dead units and zeros, against the masked network and the paths through its units."""

import functools
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras.layers import Conv2D, Dense, Flatten

from keras_sbp import keras_private
from keras_sbp.layers.sbp import SBP
from keras_sbp.nets.lenet5 import lenet5
from keras_sbp.nets.lenet_fc import lenet_fc
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting
from tests.support.networks import (
    TOLERANCE,
    WEIGHTED,
    Noise,
    difference,
    draw_dead,
    draw_weights,
    images,
    kill,
    noises,
    outputs,
    random_network,
    small_lenet5,
    small_lenet_fc,
)
from tests.support.slow import cases


@pytest.fixture(scope="module")
def network():
    """The LeNets by name. Each is built once, as tests set all its weights."""
    nets = {"small_lenet5": (small_lenet5, Noise), "small_lenet_fc": (small_lenet_fc, Noise)}
    nets.update(lenet5=(lenet5, SBP), lenet_fc=(lenet_fc, SBP))

    @functools.cache
    def build(name):
        net, unit = nets[name]
        return net(unit)

    return build


def connected_macs(model):
    """MACs of a chain of layers with only those units that are on a path from the inputs to the logits."""
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


def shrunk(model):
    """The smaller network, which has what `shrink` promises of any."""
    smaller = pruning.shrink(model)
    assert difference(model, smaller) <= TOLERANCE
    names = [keras_private.producer(tensor).operation.name for tensor in model.outputs]
    for op in smaller.operations:
        assert type(op).__module__.startswith("keras.")
        # An Identity only gives an output the name that it had.
        assert not isinstance(op, layers.Identity) or op.name in names
    return smaller


@pytest.mark.parametrize("zeros", cases([0, 0.15], slow={0.15}))
@pytest.mark.parametrize("name, count", [("lenet5", 6), ("lenet_fc", 6), ("small_lenet5", 20), ("small_lenet_fc", 20)])
def test_shrunk_lenets_match_and_have_the_macs_of_connected_units(network, name, count, zeros):
    expected = []
    for seed in range(count):
        model = draw_weights(network(name), np.random.default_rng(seed), zeros)
        expected.append(connected_macs(model))
        assert counting.multiply_adds(shrunk(model)) == expected[-1], seed
    assert len(set(expected)) > count / 3


@pytest.mark.parametrize("name", ["lenet5", "lenet_fc"])
@pytest.mark.parametrize("left", [0, 1])
def test_lenets_with_at_most_one_live_unit_in_a_layer(network, name, left):
    rng = np.random.default_rng(left)
    for narrow in noises(network(name)):
        model = draw_weights(network(name), rng)
        for layer in noises(model):
            kill(layer, (np.arange(layer.input.shape[-1]) >= left) & (layer is narrow), rng)
        smaller = shrunk(model)
        assert counting.multiply_adds(smaller) == connected_macs(model)
        assert left or counting.multiply_adds(smaller) == 0
        assert left or np.ptp(smaller(images(smaller)), axis=0).max() == 0


@pytest.mark.parametrize("seed", cases(range(40), slow=range(10, 40)))
def test_shrunk_random_networks_match_and_shrink_no_further(seed):
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
def test_only_units_on_a_path_from_input_to_output_are_kept(shape, middle):
    model = chain(shape, *middle)
    for seed in range(4):
        draw_weights(model, np.random.default_rng(seed))
        smaller = shrunk(model)
        assert counting.multiply_adds(smaller) == counting.multiply_adds(shrunk(smaller)) == connected_macs(model)


def test_units_used_by_either_of_two_heads_are_kept():
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


def test_unused_color_channel_is_not_an_input_of_the_convolution():
    model = draw_weights(chain((8, 8, 3), Conv2D(6, 3), Flatten()), np.random.default_rng(0))
    kernel, bias = model.layers[0].get_weights()
    kernel[:, :, 1] = 0
    model.layers[0].set_weights([kernel, bias])
    smaller = shrunk(model)
    assert smaller.layers[0].output.shape == (None, 8, 8, 3)
    assert counting.kernels(smaller)[model.layers[0].name] == (3, 3, 2, 6)


def test_filters_of_zeros_are_folded_into_biases():
    model = chain((8, 8, 1), Conv2D(6, 3, activation="sigmoid"), Conv2D(5, 3), Flatten())
    draw_weights(model, np.random.default_rng(0))
    kernel, bias = model.layers[0].get_weights()
    kernel[..., 2:] = 0
    model.layers[0].set_weights([kernel, bias])
    assert [shape[-1] for shape in counting.kernels(shrunk(model)).values()] == [2, 5, 4]


def test_constants_that_differ_at_the_border_are_exact():
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
def test_network_without_live_units_is_a_constant_of_the_same_shape(last):
    model = keras.Sequential([keras.Input((8, 8, 1)), Conv2D(3, 3), Noise(), layers.BatchNormalization(), *last])
    draw_weights(model, np.random.default_rng(0))
    kill(model.layers[1], np.ones(3, bool), np.random.default_rng(0))
    smaller = shrunk(shrunk(model))
    assert counting.multiply_adds(smaller) == 0


def test_new_layers_have_unique_names():
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


def test_mixed_precision_networks_become_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = draw_weights(small_lenet5(SBP), np.random.default_rng(1))
    finally:
        keras.config.set_dtype_policy("float32")
    smaller = pruning.shrink(model)
    assert {layer.compute_dtype for layer in smaller.layers[1:]} == {"float32"}
    assert difference(model, smaller) <= 0.05


def test_smaller_networks_load_without_this_package(tmp_path):
    rngs = [np.random.default_rng(seed) for seed in range(2)]
    models = [draw_weights(random_network(rng), rng, zeros=0.2) for rng in rngs] + [lenet5(SBP), lenet_fc(SBP)]
    kill(models[-1].get_layer("dense1_unit"), np.ones(500, bool), rngs[0])
    for i, model in enumerate(models):
        smaller = pruning.shrink(model)
        smaller.save(tmp_path / f"{i}.keras")
        np.savez(tmp_path / f"{i}.npz", images(smaller), *outputs(smaller))
    script = """
import importlib.util, pathlib, keras, numpy as np
assert not importlib.util.find_spec("keras_sbp")
connected_macs = list(pathlib.Path().glob("*.keras"))
for path in connected_macs:
    images, *expected = np.load(path.with_suffix(".npz")).values()
    outputs = keras.tree.flatten(keras.models.load_model(path)(images))
    for a, b in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
print(len(connected_macs))
"""
    run = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(models)


ODD = {
    "softmax": lambda x: layers.Softmax(name="odd")(x),
    "softmax as an activation": lambda x: layers.Activation("softmax", name="odd")(x),
    "another axis": lambda x: layers.BatchNormalization(axis=1, name="odd")(x),
    "layer normalization of an axis": lambda x: layers.LayerNormalization(axis=1, name="odd")(x),
    "length": lambda x: layers.UnitNormalization(name="odd")(x),
    "an op": lambda x: keras.ops.cumsum(x, axis=-1),
    "another order": lambda x: layers.Permute((3, 1, 2), name="odd")(x),
}


@pytest.mark.parametrize("odd", ODD)
def test_layers_without_a_rule_keep_their_input_and_output_units(odd):
    """Its four input filters are kept, dead or not; the layers before and after are pruned."""
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
def test_softmax_keeps_its_units(activation):
    model = chain((7,), Dense(6, "relu"), Noise(), Dense(5, activation), layers.Rescaling(2.0))
    draw_weights(model, np.random.default_rng(0))
    kill(model.layers[1], np.arange(6) < 4, np.random.default_rng(0))
    assert list(counting.kernels(shrunk(model)).values()) == [(7, 2), (2, 5), (5, 4)]


def test_shared_layers_keep_the_same_units_at_every_call():
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


def test_layer_that_follows_itself():
    inputs, twice = keras.Input((4,)), Dense(4, "relu", name="twice")
    model = keras.Model(inputs, Dense(3)(Noise()(twice(twice(inputs)))))
    for seed in range(5):
        shrunk(draw_weights(model, np.random.default_rng(seed), zeros=0.3))


def test_error_for_a_model_without_a_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="own is a subclass"):
        pruning.shrink(Own(name="own"))


def removed(model, dead, rng):
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


def draw_live(model, rng):
    draw_weights(model, rng)
    for layer in noises(model):
        kill(layer, np.zeros(layer.input.shape[-1], bool), rng)


@pytest.mark.parametrize("dead", [0, 1])
def test_it_is_said_if_no_unit_is_dead(dead):
    model = keras.Sequential([keras.Input((6,)), SBP(log_sigma=-5.0), layers.Dense(3)])
    model.layers[0].log_sigma.assign([5.0] * dead + [-5.0] * (6 - dead))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pruning.shrink(model)
    assert any("no unit" in str(each.message) for each in caught) == (dead == 0)


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("lenet5", 2), ("lenet_fc", 2), ("small_lenet5", 8), ("small_lenet_fc", 8)])
def test_remove_units_of_lenets(network, name, count):
    for seed in range(count):
        model, rng = network(name), np.random.default_rng(seed)
        draw_live(model, rng)
        dead = draw_dead(model, rng)
        smaller = removed(model, dead, rng)
        if connected_macs(model):
            assert counting.multiply_adds(smaller) == connected_macs(model)


@pytest.mark.parametrize("seed", range(8))
def test_remove_units_of_random_networks(seed):
    rng = np.random.default_rng(seed)
    model = random_network(rng)
    draw_live(model, rng)
    removed(model, draw_dead(model, rng), rng)


def test_remove_units_when_the_live_units_of_two_layers_are_not_connected(network):
    model, rng = network("lenet5"), np.random.default_rng(0)
    draw_live(model, rng)
    dead = {layer.name: np.zeros(layer.input.shape[-1], bool) for layer in noises(model)}
    dead["conv2_unit"] = np.arange(50) > 0
    dead["features_unit"] = np.arange(800) % 50 == 0
    removed(model, dead, rng)
    dead["conv2_unit"][:] = True
    removed(model, dead, rng)


def test_removing_units_in_two_steps_equals_one(network):
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
        counting.multiply_adds(smaller)
        == connected_macs(model)
        < counting.multiply_adds(half)
        < counting.multiply_adds(model)
    )
    assert all(np.array_equal(weight.numpy(), was) for weight, was in zip(model.weights, before))
