"""Where `insert` puts noise, and why `unprunable` layers get none."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from keras_sbp import keras_private
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import counting, fit
from tests.stress import keras_applications
from tests.support import halves
from tests.test_odd_networks import IMAGES, Doubled, network, outputs_stay


def noise_sites(model, **settings):
    """{noise layer's name: names of the layers whose outputs it multiplies}."""
    found = {}
    for layer in pruning.insert(model, **settings).layers:
        if isinstance(layer, SBP):
            inputs = [
                keras_private.producer(node.input_tensors[0]).operation.name for node in keras_private.calls(layer)
            ]
            found[layer.name] = inputs
    return found


def test_noise_follows_the_last_unitwise_layer():
    inputs = keras.Input((16, 16, 3))
    x = L.ReLU(name="relu1")(L.BatchNormalization(name="norm1")(L.Conv2D(8, 3, name="conv1")(inputs)))
    x = L.ReLU(name="relu2")(L.DepthwiseConv2D(3, name="depthwise")(x))
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    model = keras.Model(inputs, L.Dense(3, name="logits")(L.Dense(9, activation="relu", name="dense")(x)))
    assert noise_sites(model) == {"conv1_noise": ["pool"], "dense_noise": ["dense"]}
    assert noise_sites(model, exclude=["conv1"]) == {"dense_noise": ["dense"]}
    assert pruning.unprunable(model, ["conv1"]) == {
        "conv1": "excluded", "depthwise": "excluded", "logits": "output of the network"
    }  # fmt: skip


def test_summands_of_a_residual_stream_share_one_noise_layer():
    inputs = keras.Input((16, 16, 3))
    x = L.ReLU(name="relu0")(L.Conv2D(8, 3, padding="same", name="conv0")(inputs))
    for block in "12":
        y = L.ReLU(name=f"relu{block}")(L.Conv2D(6, 3, padding="same", name=f"conv{block}a")(x))
        y = L.BatchNormalization(name=f"norm{block}")(L.Conv2D(8, 3, padding="same", name=f"conv{block}b")(y))
        x = L.ReLU(name=f"sum{block}")(L.Add(name=f"add{block}")([x, y]))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D(name="features")(x)))
    assert noise_sites(model) == {
        "conv0_noise": ["relu0", "norm1", "norm2"], "conv1a_noise": ["relu1"], "conv2a_noise": ["relu2"]
    }  # fmt: skip


def test_noise_precedes_forks_and_concatenations():
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 3, activation="relu", name="conv1")(inputs)
    gate = L.Dense(8, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(name="mean")(x))
    y = L.Conv2D(4, 1, name="conv2")(L.Multiply(name="product")([x, L.Reshape((1, 1, 8), name="shape")(gate)]))
    z = L.Concatenate(name="both")([x, y])
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(z)))
    assert noise_sites(model) == {"conv1_noise": ["conv1"], "conv2_noise": ["conv2"]}
    assert pruning.unprunable(model)["gate"] == "its units go with those of product"


def test_a_factor_of_a_product_that_stays_stays():
    inputs = keras.Input((6,))
    gate, x, last = (L.Dense(4, name=name)(inputs) for name in ("gate", "first", "last"))
    pruned = L.Dense(2)(L.Multiply(name="pruned")([x, gate]))
    model = keras.Model(inputs, [pruned, L.Multiply(name="output")([last, gate])])
    assert pruning.unprunable(model)["gate"].startswith("factor in ")


def test_transformer_blocks_are_pruned():
    model = keras_applications.transformer()
    assert len(noise_sites(model)) == 6, "two streams, heads and their dimensions, what is between two dense layers"
    noisy = pruning.insert(model)
    keras_applications.kill(noisy, 1.0, np.random.default_rng(0))
    assert counting.multiply_adds(pruning.shrink(noisy)) == 0


@pytest.mark.parametrize("name", ["pre-activation", "dense blocks"])
def test_noise_has_an_effect_despite_batch_norm(name):
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


def test_error_for_an_unknown_name_in_exclude():
    with pytest.raises(ValueError, match="nowhere"):
        pruning.insert(keras_applications.recurrent(), exclude=["nowhere"])


def joined(after):
    """A network in which units are, after that layer, units under other numbers."""
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = L.Concatenate(name="joined")([L.Conv2D(3, 1, name="one")(x), L.Conv2D(2, 1, name="other")(x)])
    return keras.Model(inputs, after(x))


@pytest.mark.parametrize(
    "after, why",
    [
        (L.Activation("softmax", name="softmax"), "read by softmax (Activation)"),
        (L.Flatten(name="logits"), "output of the network"),
        (lambda x: L.Dense(2)(L.UnitNormalization(name="norm")(L.Flatten()(x))), "read by norm (UnitNormalization)"),
        (lambda x: L.Dense(2)(L.DepthwiseConv2D(2, depth_multiplier=2, name="twice")(x)), "output of the network"),
    ],
)
def test_renumbered_units_are_kept_with_the_units_that_they_become(after, why):
    model = joined(after)
    if "twice" in [layer.name for layer in model.layers]:
        # Its output is the network's.
        model = keras.Model(model.inputs, model.get_layer("twice").output)
    noisy = pruning.insert(model)
    assert [layer.name for layer in fit.noise_layers(noisy)] == ["first_noise"]
    why_not = pruning.unprunable(model)
    assert why_not["one"] == why_not["other"] == why and "first" not in why_not


def test_self_gated_activations_get_noise():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("first", "second"):
        x = L.BatchNormalization()(L.Conv2D(8, 3, name=name)(x))
        x = x * (ops.relu6(x + 3.0) / 6.0) if name == "first" else L.Multiply()([x, L.Activation("sigmoid")(x)])
    model = keras.Model(inputs, L.Dense(3, name="last")(L.GlobalAveragePooling2D()(x)))
    assert pruning.unprunable(model) == {"last": "output of the network"}
    assert [layer.name for layer in fit.noise_layers(pruning.insert(model))] == ["first_noise", "second_noise"]
    outputs_stay(model)


def test_layers_without_a_rule_are_listed_as_unprunable():
    inputs = keras.Input((4, 8))
    x = L.LSTM(5, name="lstm")(Doubled(7, name="doubled")(L.Softmax(name="each")(L.Dense(6, name="dense")(inputs))))
    why = pruning.unprunable(keras.Model(inputs, L.Dense(2, name="out")(x)))
    assert why == {
        "dense": "read by each (Softmax)",
        "out": "output of the network",
    }


def test_units_normalized_together_with_excluded_ones_are_listed():
    inputs = keras.Input((8, 8, 3))
    first = L.Conv2D(4, 3, padding="same", name="first")(inputs)
    second = L.Conv2D(4, 3, padding="same", name="second")(L.ReLU()(L.BatchNormalization()(first)))
    x = L.BatchNormalization()(L.Concatenate()([first, second]))
    model = keras.Model(inputs, L.Conv2D(2, 8, name="last")(L.ReLU()(x)))
    assert set(pruning.unprunable(model)) == {"last"}
    why = pruning.unprunable(model, ["first"])
    assert why == {
        "first": "excluded", "second": "normalized together with units that are kept", "last": "output of the network",
    }  # fmt: skip
    assert not fit.noise_layers(pruning.insert(model, exclude=["first"]))


def test_error_for_exclude_as_a_string():
    with pytest.raises(TypeError, match="pass a list"):
        pruning.insert(network("adapted normalization"), exclude="dense")


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="is not built"):
        pruning.insert(keras.Sequential([L.Dense(3)]))
    noisy = pruning.insert(network("lambda"))
    noisy.compile(fit.optimizer(keras.optimizers.Adam(), keras.optimizers.Adam()), "mse")
    with pytest.raises(ValueError, match="insert it with kl_weight=1 / N"):
        noisy.fit(np.zeros((4, *IMAGES)), np.zeros((4, 3)), verbose=0, callbacks=[fit.AnnealKL()])


def test_adapters_of_low_rank_become_part_of_the_kernel():
    inputs, dense = keras.Input((6,)), L.Dense(8, activation="relu", name="adapted")
    model = keras.Model(inputs, L.Dense(3)(dense(inputs)))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.random.default_rng(0).normal(size=(2, 8)))
    noisy, smaller = halves.halved(model)
    adapted = smaller.get_layer("adapted")
    assert not adapted.lora_enabled and [tuple(weight.shape) for weight in adapted.weights] == [(6, 4), (4,)]
    given = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    assert keras_applications.difference(noisy, smaller, given) <= 1e-5
    assert keras_applications.difference(model, pruning.insert(model), given) <= 1e-5
    assert halves.difference_in_training(model) <= 1e-5


def test_reasons_name_what_keeps_a_layer_of_a_kind_with_a_rule():
    images, features = keras.Input((12, 12, 3)), keras.Input((12,))
    x = L.Conv2D(8, 3, activation="relu", name="conv")(images)
    x = L.GlobalAveragePooling2D()(L.BatchNormalization(axis=1, name="norm")(x))
    y = L.Dense(8, activation=L.PReLU(), name="learned")(L.Dense(16, activation="relu", name="before")(features))
    model = keras.Model([images, features], [L.Dense(3, name="one")(x), L.Dense(3, name="two")(y)])
    output = "output of the network"
    assert pruning.unprunable(model) == {
        "conv": "read by norm (BatchNormalization)", "norm": "axis is 1, not the last",
        "before": "read by learned (Dense)", "learned": "its activation has weights", "one": output, "two": output,
    }  # fmt: skip


def test_a_network_that_would_be_dead_from_the_start_is_refused():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3)(inputs)))
    with pytest.raises(ValueError, match="all units are dead: use smaller ones"):
        pruning.insert(model, log_sigma=2.0)
    with pytest.raises(ValueError, match="no such layer"):
        pruning.unprunable(model, exclude=["nothing"])
    with pytest.raises(TypeError, match="pass a list of names"):
        pruning.unprunable(model, exclude="dense")


def test_lora_inside_attention_is_refused():
    inputs, attention = keras.Input((7, 8)), L.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, L.Dense(3)(attention(inputs, inputs)))
    query, *_ = keras_private.inner_layers(attention)
    query.enable_lora(2)
    with pytest.raises(ValueError, match="Merge it into the kernels first"):
        pruning.insert(model)


def test_a_choice_between_units_and_one_value_for_all_of_them():
    inputs, chosen = keras.Input((6,)), keras.Input((1,), dtype="bool")
    x = ops.where(chosen, L.Dense(8)(inputs), L.Dense(1)(inputs))
    noisy = pruning.insert(keras.Model([inputs, chosen], L.Dense(2)(x)))
    given = [np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32), np.array([[True], [False], [True]])]
    np.testing.assert_allclose(pruning.shrink(noisy)(given), noisy(given), atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"criterion": "evidence", "log_sigma": 3.0}, {"kl_weight": -1.0}, {"kl_weight": np.nan}]
)
def test_what_cannot_be_trained_is_refused(settings):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(L.Dense(8, activation="relu")(inputs)))
    with pytest.raises(ValueError, match=next(iter(settings))):
        pruning.insert(model, **settings)


def test_noise_is_added_to_a_network_with_some_but_not_twice():
    inputs = keras.Input((4,))
    x = L.Dense(8, activation="relu", name="second")(SBP(name="own")(L.Dense(8, activation="relu")(inputs)))
    noisy = pruning.insert(keras.Model(inputs, L.Dense(2)(x)))
    assert [layer.name for layer in fit.noise_layers(noisy)] == ["own", "second_noise"]
    with pytest.raises(ValueError, match=r"has noise already \(own, second_noise\).*: give the network without it"):
        pruning.insert(noisy, kl_weight=1e-3)


def test_copies_do_not_live_as_long_as_the_model_they_come_from():
    inputs = keras.Input((4,))
    hidden = L.Dense(8, activation="relu", name="dense")(inputs)
    model = keras.Model(inputs, L.Dense(2)(ops.abs(hidden)))
    noisy = pruning.insert(model)
    smaller = pruning.shrink(keras.models.clone_model(noisy))
    kernels = [weakref.ref(copy.get_layer("dense").kernel) for copy in (noisy, smaller)]
    del noisy, smaller
    gc.collect()
    assert [kernel() for kernel in kernels] == [None, None]
