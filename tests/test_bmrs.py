"""scripts/bmrs.py: the networks of BMRS's Table 1, and its rows."""

import runpy

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.io import data
from keras_sbp.utils.pruning import fit
from tests.support.scripts import ROOT


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "bmrs.py"))


def test_the_networks_have_the_parameters_of_theirs(script):
    """PyTorch's modules of their repository, counted by hand: weights and biases."""
    lenet5 = (25 + 1) * 6 + (6 * 25 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert script["lenet5"]((32, 32, 1)).count_params() == lenet5 == 61_706
    assert script["lenet5"]((32, 32, 3)).count_params() == (
        (75 + 1) * 18 + (18 * 25 + 1) * 48 + (1200 + 1) * 360 + (360 + 1) * 252 + (252 + 1) * 10
    )
    assert script["mlp"]((1024,)).count_params() == (1024 + 1) * 50 + 5 * (50 + 1) * 50 + (50 + 1) * 10


@pytest.mark.parametrize("dataset, ends", [("mnist", [-127 / 255, 128 / 255]), ("cifar10", [-1, 1])])
def test_pixels_have_the_range_of_theirs(script, monkeypatch, dataset, ends):
    """MNIST: (x - 127) / 255. CIFAR-10: torchvision's ToTensor, and Normalize by a mean and a deviation of 0.5."""
    black_and_white = np.stack([np.full((28, 28, 1), pixel, np.uint8) for pixel in (0, 255)])
    monkeypatch.setattr(data, "load", lambda *which: data.Images(black_and_white, np.array([3, 5])))
    with flagsaver.flagsaver():
        flags.FLAGS(["bmrs.py", f"--dataset={dataset}"])
        x, labels = script["images"]("train")
    assert x.shape == (2, 32, 32, 1) and labels.tolist() == [3, 5]
    np.testing.assert_allclose(x, np.broadcast_to(np.reshape(ends, (2, 1, 1, 1)), x.shape), atol=1e-6)


def test_the_table_has_means_and_deviations_over_seeds(script):
    name = "the bound's KL"
    rows = [
        {"training": name, "seed": seed, "criterion": "snr", "parameters_gone": gone, "accuracy": accuracy}
        for seed, (gone, accuracy) in enumerate([(60.0, 98.0), (62.0, 99.0), (64.0, 97.0)])
    ]
    assert script["table"](rows).splitlines()[2:] == [f"| {name} | snr | 3 | 62.00 ± 2.00 | 98.00 ± 1.00 |"]


def test_units_are_removed_after_the_first_two_thirds_of_the_epochs_and_stay_removed(script):
    inputs = keras.Input((3,))
    hidden = SBP(name="noise")(keras.layers.Dense(4, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    noise, certain, dead = model.get_layer("noise"), -5.0, 5.0  # log sigma
    remover = script["RemoveUnits"]("snr")
    remover.set_model(model)
    remover.set_params({"epochs": 3})
    remover.on_train_begin()
    for epoch, log_sigma in enumerate(([dead, certain, certain, certain], [certain, dead, certain, certain])):
        noise.log_sigma.assign(log_sigma)
        remover.on_epoch_end(epoch)
    assert remover.removed["noise"].tolist() == [True, True, False, False]
    noise.mu.assign([-1.0, -1.0, 0.0, 0.0])  # as an optimizer may
    noise.log_sigma.assign([certain, certain, dead, certain])
    remover.on_epoch_end(2)
    assert remover.removed["noise"].tolist() == [True, True, False, False], "the last third removes none"
    assert np.all(np.asarray(noise.sample())[:2] < 1e-8)


def test_a_removed_unit_is_gone_and_the_others_stay_as_they_are(script):
    """Also one whose ratio falls below 1 after the last removal: it is multiplied by E theta."""
    keras.utils.set_random_seed(0)
    model = script["lenet5"]((32, 32, 1), lambda: [script["NoiseEverywhere"](1e-4)])
    remover = script["RemoveUnits"]("snr")
    remover.set_model(model)
    remover.set_params({"epochs": 3})
    remover.on_train_begin()
    noise = fit.noise_layers(model)
    for layer in noise:
        layer.log_sigma.assign(np.where(np.arange(layer.mu.shape[0]) % 3, -3.0, 5.0))
    remover.on_epoch_end(0)
    for layer in noise:
        layer.log_sigma.assign(np.where(np.arange(layer.mu.shape[0]) % 3 == 1, 2.0, layer.log_sigma))
    remover.on_epoch_end(2)
    x = np.random.default_rng(0).normal(size=(5, 32, 32, 1)).astype(np.float32)
    smaller = remover.shrink()
    units = [2 * layer.mu.shape[0] // 3 for layer in noise]
    assert [layer.units for layer in smaller.layers if isinstance(layer, keras.layers.Dense)] == [*units[2:], 10]
    for layer in noise:
        layer.threshold = 0.0  # nothing is masked; removed units are multiplied by exp(-20)
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)


def test_units_are_removed_by_the_criterion_of_the_training(script):
    """At mu = 0 and log sigma = 1 the ratio is 0.98, but the evidence keeps the unit."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, SBP(name="noise")(inputs))
    model.get_layer("noise").log_sigma.assign([-5.0, 1.0, 5.0])
    for criterion, removed in (("snr", [False, True, True]), ("evidence", [False, False, True])):
        remover = script["RemoveUnits"](criterion)
        remover.set_model(model)
        remover.set_params({"epochs": 3})
        remover.on_train_begin()
        log_sigma = np.array(model.get_layer("noise").log_sigma)
        remover.on_epoch_end(0)
        assert remover.removed["noise"].tolist() == removed
        model.get_layer("noise").mu.assign([0.0] * 3)
        model.get_layer("noise").log_sigma.assign(log_sigma)


def test_the_weight_of_the_kl_divergence(script):
    """Averaged over units and four layers; or 1 / N as in the bound, or a multiple of it."""

    def weights(**kinds):
        training = script["Training"](**{"own_rate": False} | kinds)
        model = script["with_noise"](script["lenet5"], (32, 32, 1), training, 1000)
        return [float(layer.kl_weight) for layer in fit.noise_layers(model)]

    averaged = [1 / (4 * units) for units in (6, 16, 120, 84)]
    np.testing.assert_allclose(weights(kl=None), averaged, rtol=1e-6)
    np.testing.assert_allclose(weights(kl=None, everywhere=True), averaged, rtol=1e-6)
    np.testing.assert_allclose(weights(kl=1), [1e-3] * 4, rtol=1e-6)
    np.testing.assert_allclose(weights(kl=40), [4e-2] * 4, rtol=1e-6)


def test_noise_for_each_position_has_the_distribution_of_sbp_and_is_drawn_anew(script):
    keras.utils.set_random_seed(0)
    layer = script["NoiseEverywhere"]()
    ones = np.ones((50, 20, 20, 4), np.float32)
    layer.build(ones.shape)
    layer.mu.assign([0.0, -1.0, -1.0, 1.0])
    layer.log_sigma.assign([-2.0, 0.0, 0.0, -1.0])
    theta = np.asarray(layer(ones, training=True))
    assert len(np.unique(theta[0, :, :, 1])) > 300 and len(np.unique(theta[:, 0, 0, 1])) == 50
    assert np.abs(np.corrcoef(theta[..., 1].ravel(), theta[..., 2].ravel())[0, 1]) < 0.03, "channels have their own"
    expected = truncated_log_normal.mean(layer.mu, layer.log_sigma)
    np.testing.assert_allclose(theta.mean((0, 1, 2)), expected, rtol=0.02)
    np.testing.assert_allclose(theta.mean((0, 1, 2)) / theta.std((0, 1, 2)), layer.snr(), rtol=0.03)
    np.testing.assert_allclose(np.asarray(layer(ones))[0, 0, 0], np.asarray(layer.multiplier()), rtol=1e-6)
