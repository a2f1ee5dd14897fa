"""SSL: its proximal step against the optimality conditions, and networks in which groups are 0."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.layers import ssl
from keras_sbp.utils import pruning
from keras_sbp.utils.io import data, preprocessing
from keras_sbp.utils.pruning import counting
from tests.support.steps import steps, train


def test_soft_threshold_is_the_minimizer():
    """Of |x - g|^2 / 2 + t |x|: where x is not 0, x - g + t x / |x| = 0; where it is, |g| <= t (Yuan and Lin, 2006)."""
    groups = np.random.default_rng(0).normal(size=(3, 4, 50))
    threshold = np.linspace(0, 6, 50)
    x = np.asarray(ssl.soft_threshold(tf.constant(groups), tf.constant(threshold)))
    norm = np.linalg.norm(x, axis=(0, 1))
    nonzero = norm > 0
    assert 10 < nonzero.sum() < 40
    condition = x - groups + threshold * x / np.where(nonzero, norm, 1)
    np.testing.assert_allclose(condition[..., nonzero], 0, atol=1e-12)
    assert (np.linalg.norm(groups, axis=(0, 1))[~nonzero] <= threshold[~nonzero]).all()
    np.testing.assert_array_equal(ssl.soft_threshold(tf.zeros((2, 3)), 0.0), np.zeros((2, 3)))


def network():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv1")(inputs)
    x = keras.layers.Conv2D(5, 3, activation="relu", name="conv2")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(8, activation="relu", name="dense")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def test_proximal_step_thresholds_columns_and_then_rows():
    model = network()
    generator = np.random.default_rng(1)
    before = {}
    for layer in ssl.kernel_layers(model):
        before[layer.name] = [generator.normal(size=w.shape).astype(np.float32) for w in layer.weights]
        layer.set_weights(before[layer.name])
    ssl.proximal_step(lambda layer: 2.0 if "conv" in layer.name else 3.0)(model, tf.constant(0.1))

    def shrink(vector, threshold):
        norm = np.sqrt((vector**2).sum())
        return vector * max(0, 1 - threshold * np.sqrt(vector.size) / norm)

    for name, (kernel, bias) in before.items():
        threshold = 0.2 if "conv" in name else 0.3
        if name != "logits":
            for unit in range(kernel.shape[-1]):
                column = shrink(np.append(kernel[..., unit], bias[unit]), threshold)
                kernel[..., unit], bias[unit] = column[:-1].reshape(kernel.shape[:-1]), column[-1]
        if name != "conv1":
            for unit in range(kernel.shape[-2]):
                kernel[..., unit, :] = shrink(kernel[..., unit, :], threshold)
        layer = model.get_layer(name)
        np.testing.assert_allclose(layer.kernel, kernel, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.bias, bias, rtol=1e-5, atol=1e-6)


def test_row_norms_shrink_by_a_fraction_of_their_mean_and_the_kernel_keeps_its_norm():
    model = network()
    generator = np.random.default_rng(2)
    norms = {"conv2": [0, 1, 2, 3], "logits": [0, 0, 0.4, 0.6, 1, 1, 1, 2]}
    for name, wanted in norms.items():
        kernel = generator.normal(size=model.get_layer(name).kernel.shape)
        axes = tuple(axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2)
        kernel *= np.reshape(wanted, (-1, 1)) / np.sqrt((kernel**2).sum(axes, keepdims=True))
        model.get_layer(name).kernel.assign(kernel)
    before = {layer.name: np.asarray(layer.kernel) for layer in ssl.kernel_layers(model)}
    ssl.shrink_rows(model, 0.5)
    # By hand: the mean norms of rows other than 0 are 2 and 1, so rows lose 1 and 0.5; what is left, 0 - 0 - 1 - 2 and
    # 0 - 0 - 0 - 0.1 - 0.5 - 0.5 - 0.5 - 1.5, is rescaled to the norm that the kernel had.
    rescale = {"conv2": (14 / 5) ** 0.5, "logits": (7.52 / 3.01) ** 0.5}
    left = {"conv2": [0, 0, 1 / 2, 2 / 3], "logits": [0, 0, 0, 1 / 6, 0.5, 0.5, 0.5, 0.75]}
    for name in norms:
        factor = rescale[name] * np.reshape(left[name], (-1, 1))
        np.testing.assert_allclose(model.get_layer(name).kernel, factor * before[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, before["conv1"])
    np.testing.assert_array_equal(ssl.used_inputs(model)["conv2"], [False, False, True, True])
    assert list(ssl.used_inputs(model)) == ["conv2", "dense", "logits"]


@pytest.mark.parametrize("seed", range(5))
def test_units_without_weights_are_zero_and_are_removed(seed):
    model = network()
    generator = np.random.default_rng(seed)
    for layer in ssl.kernel_layers(model):
        layer.set_weights([generator.normal(size=w.shape) for w in layer.weights])
        small = np.arange(layer.kernel.shape[-1]) % 2 == generator.integers(2)
        if layer.name != "logits":
            layer.kernel.assign(np.where(small, 1e-3, 1.0) * np.asarray(layer.kernel))
            layer.bias.assign(np.where(small, 1e-3, 1.0) * np.asarray(layer.bias))
    ssl.proximal_step(lambda layer: 0.1)(model, tf.constant(0.1))
    live = ssl.live_units(model)
    smaller = pruning.shrink(model)
    x = generator.random((20, 6, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(smaller(x), model(x), rtol=1e-4, atol=1e-4)
    for name in ("conv1", "conv2", "dense"):
        assert 0 < live[name].sum() < len(live[name])
        np.testing.assert_array_equal(np.asarray(model.get_layer(name).bias)[~live[name]], 0)
        assert counting.kernels(smaller)[name][-1] == live[name].sum()


def test_dead_groups_are_zero_after_the_last_step():
    """Their gradients are too small to keep them alive; a learning rate that ends at 0 must not let them grow again."""
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    images = data.load("digits", "", "train")
    updates = {"optimizer": ssl.sgd, "proximal": ssl.proximal_step(lambda layer: 1500.0)}
    step = steps(images, rate=lambda variable: 0.3 / 1500, **updates)(model)
    step.run(0, 0, 15)
    step.run(1, 0, 15)
    np.testing.assert_array_equal(model.layers[-1].kernel, np.zeros((784, 10)))
    assert np.any(np.asarray(model.layers[-1].bias) != 0)


def with_dead_units():
    """Of 5 filters, 2 are 0; of 8 neurons, 2 have no weights but a bias of 0.5, and 2 more are not used."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(5, 5, strides=3, activation="relu", name="conv")(inputs)
    x = keras.layers.Dense(8, activation="relu", name="dense")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))
    generator = np.random.default_rng(0)
    conv, dense, logits = (model.get_layer(name) for name in ("conv", "dense", "logits"))
    for layer in (conv, dense, logits):
        layer.set_weights([0.1 * generator.normal(size=weight.shape) for weight in layer.weights])
    conv.set_weights([np.where(np.arange(5) < 2, 0, weight) for weight in conv.get_weights()])
    kernel, bias = dense.get_weights()
    dense.set_weights([np.where(np.arange(8) < 2, 0, kernel), np.where(np.arange(8) < 2, 0.5, bias)])
    logits.kernel.assign(np.where(np.isin(np.arange(8), (4, 5))[:, None], 0, logits.kernel))
    return model


def test_units_without_weights_are_removed_from_the_running_network(tmp_path):
    """Only the convolution is trained, so dead units stay dead: with and without them, it trains to the same."""
    digits, found = data.load("digits", "", "train"), []
    make_step = steps(digits, rate=lambda variable: 0.1 if variable.path.startswith("conv") else 0.0, epochs=3)
    for shrink_every in (0, 1):
        directory = tmp_path / str(shrink_every)
        directory.mkdir()
        found.append(train(with_dead_units(), make_step, str(directory), shrink_every=shrink_every))
    whole, smaller = found
    assert [whole.get_layer("conv").filters, whole.get_layer("dense").units] == [5, 8]
    assert [smaller.get_layer("conv").filters, smaller.get_layer("dense").units] == [3, 4]
    x = preprocessing.scale(digits.images[:50])
    np.testing.assert_allclose(smaller(x), whole(x), rtol=1e-4, atol=1e-5)
    assert np.abs(whole(x) - with_dead_units()(x)).max() > 0.01


def test_a_run_interrupted_at_the_end_of_an_epoch_resumes_to_the_same_bits(tmp_path):
    """Either rows shrink before the epoch's checkpoint is written, or the epoch is repeated."""
    make_step, calls = steps(data.load("digits", "", "train"), epochs=4), []

    def run(directory, stop):
        def shrink_rows(model):
            calls.append(directory)
            if len(calls) == stop:
                raise KeyboardInterrupt
            ssl.shrink_rows(model, 0.5)

        directory.mkdir(exist_ok=True)
        model = train(with_dead_units(), make_step, str(directory), after_epoch=shrink_rows)
        return [np.asarray(weight) for weight in model.weights]

    whole = run(tmp_path / "whole", None)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    again = run(tmp_path / "stopped", None)
    assert len(calls) == 5
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not whole[4].any(axis=1).all(), "no row is 0"
