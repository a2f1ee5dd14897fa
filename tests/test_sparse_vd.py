"""SparseVD: its KL divergence against integration, its layers against Dense, Conv2D and Gaussians, its pruning."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import keras
import mpmath
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_sbp.layers import sparse_vd
from keras_sbp.utils import pruning
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import SparseVD
from keras_sbp.utils.methods import sparse_vd as sparse_variational_dropout
from keras_sbp.utils.pruning import counting


def exact_kl(log_alpha):
    """E log|e| - log(alpha) / 2, e ~ N(1, alpha), minus its limit for infinite alpha (Molchanov et al., eq. 11)."""
    sigma = mpmath.exp(mpmath.mpf(log_alpha) / 2)
    ends = sorted({-1 / sigma, *(mpmath.mpf(z) for z in (-12, -4, 0, 4, 12))})
    expectation = mpmath.quad(lambda z: mpmath.log(abs(1 + sigma * z)) * mpmath.npdf(z), ends)
    return float(expectation - mpmath.mpf(log_alpha) / 2 + (mpmath.euler + mpmath.log(2)) / 2)


def test_kl_divergence_matches_numerical_integration():
    log_alpha = np.linspace(-8, 8, 33)
    exact = [exact_kl(x) for x in log_alpha]
    np.testing.assert_allclose(sparse_vd.kl_divergence(tf.constant(log_alpha)), exact, atol=0.01)


@pytest.mark.parametrize(
    "layer, stock, shape",
    [
        (sparse_vd.Dense(7, activation="relu"), keras.layers.Dense(7, activation="relu"), (5, 6)),
        (sparse_vd.Conv2D(4, 3), keras.layers.Conv2D(4, 3), (5, 6, 7, 2)),
        (sparse_vd.Conv2D(4, 3, 2, padding="same"), keras.layers.Conv2D(4, 3, 2, padding="same"), (5, 6, 7, 2)),
    ],
)
def test_without_noise_outputs_are_those_of_the_stock_layer(layer, stock, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stock(x)
    layer(x)
    layer.log_sigma2.assign(np.full(layer.kernel.shape, -40.0))
    stock.kernel.assign(layer.kernel)
    layer.bias.assign(np.arange(stock.bias.shape[0]) - 1.0)
    stock.bias.assign(layer.bias)
    np.testing.assert_allclose(layer(x), stock(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x, training=True), stock(x), atol=10 * np.sqrt(sparse_vd.EPSILON))


def test_outputs_in_training_have_the_moments_that_gaussian_weights_imply():
    x = np.array([1.0, -2.0, 3.0], np.float32)
    layer = sparse_vd.Dense(2, seed=0)
    layer(x[None])
    theta, sigma = np.array([[1, 2], [3, 4], [5, 6.0]]), np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    layer.kernel.assign(theta)
    layer.log_sigma2.assign(2 * np.log(sigma))
    samples = np.asarray(layer(np.tile(x, (40_000, 1)), training=True))
    standard_deviation = np.sqrt(x**2 @ sigma**2)
    np.testing.assert_allclose(samples.mean(0), x @ theta, atol=5 * standard_deviation.max() / 200)
    np.testing.assert_allclose(samples.std(0), standard_deviation, rtol=0.02)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.02, "the noise of two units is independent"


def test_weights_above_the_threshold_are_removed():
    layer = sparse_vd.Dense(1, threshold=2.0)
    layer(np.zeros((1, 4)))
    layer.kernel.assign([[1.0], [1.0], [0.1], [0.0]])
    layer.log_sigma2.assign([[1.9], [2.1], [-2.0], [-10.0]])
    np.testing.assert_array_equal(layer.sparse_kernel(), [[1], [0], [0], [0]])


def random_network(generator, keep):
    """Three layers in which the given fractions of the weights are left."""
    inputs = keras.Input((8, 8, 2))
    x = sparse_vd.Conv2D(6, 3, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = sparse_vd.Dense(12, activation="relu", name="dense")(x)
    model = keras.Model(inputs, sparse_vd.Dense(5, name="logits")(x))
    for layer, fraction in zip(sparse_vd.layers(model), keep):
        layer.kernel.assign(generator.normal(size=layer.kernel.shape))
        left = generator.random(layer.kernel.shape) < fraction
        layer.log_sigma2.assign(np.where(left, -10.0, 20.0))
    return model


@pytest.mark.parametrize("keep", [(0.2, 0.01, 0.2), (0.05, 0.005, 0.1), (1, 1, 1), (0, 1, 1), (0.1, 0, 1)])
def test_shrink_returns_stock_layers_with_the_same_outputs(keep, tmp_path):
    generator = np.random.default_rng(len(keep))
    model = random_network(generator, keep)
    smaller = pruning.shrink(model)
    assert all(type(layer).__module__.startswith("keras.") for layer in smaller.layers)
    smaller.save(tmp_path / "network.keras")
    x = generator.random((20, 8, 8, 2)).astype(np.float32)
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "network.keras")(x), model(x), rtol=1e-4, atol=1e-4)
    # By hand: a filter is live if a weight leads to it and one of its 16 features leads to a live neuron.
    conv, dense, logits = (np.asarray(layer.sparse_kernel()) != 0 for layer in sparse_vd.layers(model))
    filters = conv.any((0, 1, 2))
    neurons = (dense & np.tile(filters, 16)[:, None]).any(0) & logits.any(1)
    features = dense[:, neurons].any(1) & np.tile(filters, 16)
    filters &= features.reshape(16, 6).any(0)
    if filters.any():
        kernels = counting.kernels(smaller)
        assert kernels["conv"][-1] == filters.sum()
        assert kernels["dense"] == (features.sum(), neurons.sum())


def test_rewind_keeps_the_live_units_and_restores_the_original_weights():
    def network(dense, conv):
        x = inputs = keras.Input((6, 6, 2))
        x = conv(4, 3, padding="same", name="conv")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="conv_norm")(x))
        x = dense(5, activation="relu", name="dense")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, dense(3, name="logits")(x))

    original = network(keras.layers.Dense, keras.layers.Conv2D)
    original.get_layer("conv_norm").set_weights(np.array([[2.0, 1, 1, 1], [0.5, 0, 0, 0], [1, 0, 0, 2], [4, 9, 1, 2]]))
    original.get_layer("conv").bias.assign([3.0, 0, 0, 1])
    before = {weight.path: np.array(weight) for weight in original.weights}
    model = network(sparse_vd.Dense, sparse_vd.Conv2D)
    sparse_variational_dropout.initialize(model, original)
    images = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(model(images), original(images), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.sum(np.square(model.get_layer("conv").kernel), (0, 1, 2)), 1, rtol=1e-5)
    for layer in sparse_vd.layers(model):
        power = np.exp(layer.log_sigma2) * 50
        np.testing.assert_allclose(power, np.mean(np.square(layer.kernel)), rtol=1e-4)
    # Filter 1 has no weights, filter 3 and neuron 0 are not used, neuron 2 has a single weight left.
    gone = {name: np.zeros(model.get_layer(name).kernel.shape, bool) for name in ("conv", "dense", "logits")}
    gone["conv"][..., 1] = gone["dense"][3] = gone["logits"][0] = gone["dense"][:, 2] = True
    gone["dense"][0, 2] = False
    for name, weights in gone.items():
        layer = model.get_layer(name)
        layer.log_sigma2.assign(np.where(weights, 20.0, -20.0))
        layer.kernel.assign(layer.kernel + 1)
    sparse_variational_dropout.rewind(model, original)
    smaller = pruning.shrink(original)
    filters, neurons = [0, 2], [1, 2, 3, 4]
    gamma, variance = before["conv_norm/gamma"], before["conv_norm/moving_variance"]
    kernel = (before["conv/kernel"] * gamma / np.sqrt(variance + 1e-3))[..., filters]
    np.testing.assert_allclose(smaller.get_layer("conv").kernel, kernel, rtol=1e-5)
    np.testing.assert_array_equal(smaller.get_layer("dense").kernel, before["dense/kernel"][np.ix_(filters, neurons)])
    np.testing.assert_array_equal(smaller.get_layer("logits").kernel, before["logits/kernel"][neurons])


def test_saved_model_gives_the_same_outputs_under_mixed_precision(tmp_path):
    layers = [
        sparse_vd.Conv2D(3, 2, threshold=1.0, dtype="mixed_bfloat16"),
        sparse_vd.Dense(2, log_sigma2=-7.0, seed=3),
    ]
    model = keras.Sequential([keras.Input((4, 4, 1)), layers[0], keras.layers.Flatten(), layers[1]])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).random((6, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].threshold == 1.0 and again.layers[-1].get_config() == layers[1].get_config()
    assert np.isfinite(model(x, training=True)).all()
    assert again.layers[0].log_sigma2.dtype == "float32" and again.layers[0](x, training=True).dtype == tf.bfloat16


@pytest.mark.parametrize("units", [1, 4, 7])
def test_the_noise_is_standard_normal_and_independent(units):
    """By the Kolmogorov-Smirnov test, and by correlations of samples that come from the same random bits."""
    noise = sparse_vd.normal([20_000, units], (3, 1)).numpy()
    assert noise.shape == (20_000, units) and np.isfinite(noise).all()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    for power in (1, 2):
        correlations = np.corrcoef(noise.T**power) if units > 1 else np.eye(1)
        assert np.abs(correlations - np.eye(units)).max() < 0.03
    assert np.all(noise == sparse_vd.normal([20_000, units], (3, 1))) and np.any(
        noise != sparse_vd.normal([20_000, units], (3, 2))
    )


def test_the_noise_has_the_tails_of_a_normal_distribution():
    noise = np.abs(sparse_vd.normal([1_000_000, 4], (5, 6)))
    for sigmas in (1, 2, 3, 4):
        probability = 2 * stats.norm.sf(sigmas)
        assert abs(np.mean(noise > sigmas) - probability) < 4 * np.sqrt(probability / noise.size)


def test_rewinding_takes_no_network_that_lost_units_in_training():
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "vgglike-sparsevd.py"))
    with pytest.raises(UserError, match="--shrink_every"):
        script["train"](SimpleNamespace(method=SparseVD(shrink_every=1)))
