"""scripts/bmrs.py: the networks of BMRS's Table 1, and its rows."""

import runpy

import pytest

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
