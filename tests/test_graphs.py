"""Noise in networks of any topology, and the smaller networks without the units that it killed."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from tests.stress import keras_applications

# What is left of the multiply-adds with half of the units dead, at the most.
LEFT = {"ResNet50V2": 0.30, "MobileNetV2": 0.35}
# TensorFlow's graph of the others has products that `traced_multiply_adds` does not know.
TRACED = (
    "U-Net",
    "squeeze and excitation",
    "two inputs, two outputs",
    "nested",
    "three dimensions",
    "normalised first",
)


@pytest.mark.parametrize("name", keras_applications.OTHERS)
def test_the_smaller_network_computes_the_same(name):
    put_in, found = keras_applications.check(keras_applications.OTHERS[name](), shares=(0.0, 0.5, 1.0))
    assert put_in <= 1e-5
    assert max(difference for difference, _ in found) <= keras_applications.TOLERANCE
    left = [share for _, share in found]
    assert left[0] == 1 and left[0] > left[1] > left[2]


@pytest.mark.parametrize("name", LEFT)
def test_half_the_units_are_most_of_the_multiply_adds(name):
    put_in, ((difference, left),) = keras_applications.check(keras_applications.application(name), shares=(0.5,))
    assert max(put_in, difference) <= keras_applications.TOLERANCE and left <= LEFT[name]


@pytest.mark.parametrize("name", ["normalised first", "dense blocks"])
def test_batch_normalisation_does_not_undo_the_noise(name):
    """Of one layer after the other noise is drawn a few times, with a signal-to-noise ratio of about 1, in training."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    noisy = pruning.insert(keras_applications.OTHERS[name]())
    inputs, noises = keras_applications.examples(noisy, rng, 8), fit.noise_layers(noisy)
    for noise in noises:
        for layer in noises:
            loud = layer is noise
            layer.mu.assign(np.full(layer.mu.shape, -0.6 if loud else 0.0))
            layer.log_sigma.assign(np.full(layer.mu.shape, 0.6 if loud else -15.0))
        found = np.array([noisy(inputs, training=True) for _ in range(5)])
        assert np.ptp(found, axis=0).max() > 0.02 * np.abs(found).max(), noise.name
    assert len(noises) > 2


@pytest.mark.parametrize("name", TRACED)
def test_multiply_adds_are_those_of_the_traced_graph(name):
    model, rng = keras_applications.OTHERS[name](), np.random.default_rng(0)
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 0.4, rng)
    for network in (model, noisy, pruning.shrink(noisy)):
        assert counting.multiply_adds(network) == keras_applications.traced_multiply_adds(network)


def test_multiply_adds_of_recurrent_layers_and_attention_by_hand():
    # Dense at 12 steps; four gates of an LSTM that read 16 and 8, three of a GRU that read 8 and 6, at 12 steps each.
    recurrent = 12 * 5 * 16 + 12 * 4 * 8 * (16 + 8) + 12 * 3 * 6 * (8 + 6) + 6 * 10 + 10 * 3
    assert counting.multiply_adds(keras_applications.recurrent()) == recurrent
    # Queries, keys, values and outputs of 2 heads of 8; 12 by 12 products of queries and keys, of shares and values.
    attention = 4 * 12 * 16 * 2 * 8 + 2 * 2 * 12 * 12 * 8
    assert counting.multiply_adds(keras_applications.transformer()) == attention + 2 * 12 * 16 * 32 + 16 * 3


def test_what_cannot_be_counted_is_named():
    inputs = keras.Input((12, 5))
    model = keras.Model(inputs, L.Dense(3)(L.Bidirectional(L.GRU(6))(inputs)))
    with pytest.warns(UserWarning, match="Bidirectional"):
        assert counting.multiply_adds(model) == 12 * 3
    with pytest.warns(UserWarning, match="size"):
        counting.multiply_adds(keras_applications.u_net(None))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    put_in, found = keras_applications.check(
        keras_applications.random_graph(rng), shares=(rng.choice([0.1, 0.5, 0.9]), 1.0)
    )
    assert put_in <= 1e-5 and max(difference for difference, _ in found) <= keras_applications.TOLERANCE


def test_they_load_without_our_code(tmp_path):
    rng = np.random.default_rng(0)
    for number, (name, build) in enumerate(keras_applications.OTHERS.items()):
        noisy = pruning.insert(build())
        keras_applications.kill(noisy, 0.5, rng)
        smaller, inputs = pruning.shrink(noisy), keras_applications.examples(noisy, rng)
        smaller.save(tmp_path / f"{number}.keras")
        given = inputs if isinstance(inputs, list) else [inputs]
        expected = keras_applications.outputs(smaller, inputs)
        np.savez(tmp_path / f"{number}.npz", *given, *expected)
        (tmp_path / f"{number}.txt").write_text(str(len(given)))
    script = """
import importlib.util, pathlib, keras, numpy as np
assert not any(importlib.util.find_spec(name) for name in ("layers", "nets", "utils"))
for path in pathlib.Path().glob("*.keras"):
    arrays, count = [*np.load(path.with_suffix(".npz")).values()], int(path.with_suffix(".txt").read_text())
    outputs = keras.tree.flatten(keras.models.load_model(path)(arrays[:count] if count > 1 else arrays[0]))
    for a, b in zip(outputs, arrays[count:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    print(path)
"""
    run = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert len(run.stdout.split()) == len(keras_applications.OTHERS), run.stderr


# Where the noise is


def places(model, **settings):
    """{name of a layer of noise: names of the layers whose outputs it multiplies}."""
    found = {}
    for layer in pruning.insert(model, **settings).layers:
        if isinstance(layer, SBP):
            inputs = [node.input_tensors[0]._keras_history.operation.name for node in layer._inbound_nodes]
            found[layer.name] = inputs
    return found


def test_noise_follows_the_last_layer_that_treats_units_alone():
    inputs = keras.Input((16, 16, 3))
    x = L.ReLU(name="relu1")(L.BatchNormalization(name="norm1")(L.Conv2D(8, 3, name="conv1")(inputs)))
    x = L.ReLU(name="relu2")(L.DepthwiseConv2D(3, name="depthwise")(x))
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    model = keras.Model(inputs, L.Dense(3, name="logits")(L.Dense(9, activation="relu", name="dense")(x)))
    assert places(model) == {"conv1_noise": ["pool"], "dense_noise": ["dense"]}
    assert places(model, exclude=["conv1"]) == {"dense_noise": ["dense"]}
    assert pruning.unprunable(model, ["conv1"]) == {
        "conv1": "excluded", "depthwise": "excluded", "logits": "output of the network"
    }  # fmt: skip


def test_the_summands_of_a_residual_stream_share_one_noise():
    inputs = keras.Input((16, 16, 3))
    x = L.ReLU(name="relu0")(L.Conv2D(8, 3, padding="same", name="conv0")(inputs))
    for block in "12":
        y = L.ReLU(name=f"relu{block}")(L.Conv2D(6, 3, padding="same", name=f"conv{block}a")(x))
        y = L.BatchNormalization(name=f"norm{block}")(L.Conv2D(8, 3, padding="same", name=f"conv{block}b")(y))
        x = L.ReLU(name=f"sum{block}")(L.Add(name=f"add{block}")([x, y]))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D(name="features")(x)))
    assert places(model) == {
        "conv0_noise": ["relu0", "norm1", "norm2"], "conv1a_noise": ["relu1"], "conv2a_noise": ["relu2"]
    }  # fmt: skip


def test_noise_is_before_a_fork_and_before_a_concatenation():
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 3, activation="relu", name="conv1")(inputs)
    gate = L.Dense(8, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(name="mean")(x))
    y = L.Conv2D(4, 1, name="conv2")(L.Multiply(name="product")([x, L.Reshape((1, 1, 8), name="shape")(gate)]))
    z = L.Concatenate(name="both")([x, y])
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(z)))
    assert places(model) == {"conv1_noise": ["conv1"], "conv2_noise": ["conv2"]}
    assert pruning.unprunable(model)["gate"] == "factor in product"


def test_a_transformer_is_pruned_inside_and_its_stream_stays():
    model = keras_applications.transformer()
    assert len(places(model)) == 1
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 1.0, np.random.default_rng(0))
    kernels = counting.kernels(pruning.shrink(noisy))
    assert [shape[-1] for shape in kernels.values()] == [3]


def test_noise_has_the_precision_of_the_network():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras_applications.squeeze_and_excitation()
    finally:
        keras.config.set_dtype_policy("float32")
    noisy = pruning.insert(model)
    for layer in noisy.layers:
        if isinstance(layer, SBP):
            assert layer.compute_dtype == "bfloat16" and layer.mu.dtype == "float32"
    inputs = keras_applications.examples(model, np.random.default_rng(0))
    assert keras_applications.difference(model, noisy, inputs) < 0.02


def test_a_name_that_is_no_layer_s_is_an_error():
    with pytest.raises(ValueError, match="nowhere"):
        pruning.insert(keras_applications.recurrent(), exclude=["nowhere"])
