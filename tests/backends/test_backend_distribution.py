"""The distribution of the noise, against the paper's closed forms evaluated to 80 digits."""

import keras
import numpy as np
import pytest

from keras_sbp.layers import truncated_log_normal
from tests.support.backends import BACKEND, value_and_gradient
from tests.support.truth import FRACTIONS, GRID, true_expectation, true_sample

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
U = [*FRACTIONS, 2.0**-24, 1 - 2.0**-24]
both_dtypes = pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.slow), "float32"])
compiled_or_not = pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(False, id="eager", marks=pytest.mark.slow),
        pytest.param(True, id="compiled", marks=pytest.mark.skipif(BACKEND == "torch", reason="Keras does not")),
    ],
)


def check(actual, true, dtype, floors):
    for values, truth, floor in zip(actual, np.transpose(true), floors):
        assert np.all(np.isfinite(values))
        error = np.abs(values - truth) / np.maximum(floor, np.abs(truth))
        assert error.max() <= TOLERANCE[dtype], GRID[error.argmax() % len(GRID)]


@both_dtypes
@compiled_or_not
@pytest.mark.parametrize("name", ["kl_divergence", "mean", "snr"])
def test_expectations_on_a_grid(name, compiled, dtype):
    mu, log_sigma = np.transpose(GRID)
    true = np.array([true_expectation(name, *point) for point in GRID])
    actual = value_and_gradient(getattr(truncated_log_normal, name), (mu, log_sigma), dtype, compiled)
    # Of the mean and the SNR, rounding reaches the derivative in mu multiplied by 1 / sigma.
    floors = (1, 1, 1) if name == "kl_divergence" else (0, np.maximum(1, true[:, 0] * np.exp(-log_sigma)), 1)
    check(actual, true, dtype, floors)


@both_dtypes
@compiled_or_not
def test_quantiles_on_a_grid(compiled, dtype):
    mu, log_sigma = np.tile(np.transpose(GRID), len(U))
    true = [true_sample(u, *point) for u in U for point in GRID]

    def function(mu, log_sigma):
        u = keras.ops.convert_to_tensor(np.repeat(U, len(GRID)), dtype)
        return truncated_log_normal.log_quantile(u, mu, log_sigma)

    check(value_and_gradient(function, (mu, log_sigma), dtype, compiled), true, dtype, (1e-3, 1, 1))


@pytest.mark.parametrize("u, end", [(0.0, -20), (1.0, 0)])
def test_quantiles_of_0_and_1_are_the_ends_of_the_interval(u, end):
    mu, log_sigma = np.transpose(GRID)

    def function(mu, log_sigma):
        return truncated_log_normal.log_quantile(keras.ops.full(mu.shape, u), mu, log_sigma)

    value, *derivatives = value_and_gradient(function, (mu, log_sigma), "float32", False)
    hidden = abs(end - mu) > 8 * np.exp(log_sigma)
    np.testing.assert_allclose(value[~hidden], end, atol=1e-5)
    assert np.all((-20 <= value) & (value <= 0)) and np.all(np.isfinite(derivatives))


@pytest.mark.slow
def test_for_large_sigma_samples_are_uniform():
    """Also where the interval is so narrow, in units of sigma, that its ends have the same CDF in float32."""
    u = np.linspace(0, 1, 33).astype("float32")
    for log_sigma in (6, 10, 15, 20):
        point = np.full((2, len(u)), [[-3], [log_sigma]], "float32")
        log_theta = keras.ops.convert_to_numpy(truncated_log_normal.log_quantile(u, *point))
        np.testing.assert_allclose(log_theta, 20 * (u - 1), atol=0.01)


def test_a_scalar_fraction_is_broadcast_to_all_units():
    mu, log_sigma = np.float32([0, -3, 5]), np.float32([-5, 1, 0])
    scalar, vector = (truncated_log_normal.log_quantile(u, mu, log_sigma) for u in (0.25, np.full(3, np.float32(0.25))))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(scalar), keras.ops.convert_to_numpy(vector))
