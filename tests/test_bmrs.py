"""scripts/bmrs.py: the networks of BMRS's Table 1, and its rows."""

import runpy

import keras
import numpy as np
import pytest

from keras_sbp.layers.sbp import SBP
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


def test_the_ratio_in_float32_is_what_their_code_computes(script):
    """modules/util.py of BMRS's repository, run with PyTorch: NaN, and so removed, for units that are nearly certain."""
    mu = np.array([0.0, -0.05, -5.0, 0.3, -0.1, -2.0], np.float32)
    log_sigma = np.array([-5.0, -4.0, 1.0, -2.0, -5.0, -2.0], np.float32)
    found = script["snr_in_float32"](mu, log_sigma)
    np.testing.assert_allclose(found, [247.0, 55.4, 0.409, 23.9, np.nan, np.nan], rtol=0.02)
    layer = SBP()
    layer.build((None, 6))
    layer.mu.assign(mu)
    layer.log_sigma.assign(log_sigma)
    assert script["live_units"](layer, "snr").tolist() == [True, True, False, True, True, True]
    assert script["live_units"](layer, script["FLOAT32"]).tolist() == [True, True, False, True, False, False]
