"""The distribution of the noise, against the paper's closed forms evaluated to 80 digits."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sbp.layers import truncated_log_normal
from tests.support.truth import (
    FRACTIONS,
    GRID,
    mass,
    mp,
    true_expectation,
    true_log_evidence_ratio,
    true_sample,
)

DTYPES = ["float64", "float32"]
VALUE_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
GRADIENT_TOLERANCE = {
    "kl_divergence": {"float64": 1e-9, "float32": 1e-4},
    "mean": {"float64": 1e-11, "float32": 1e-6},
    "snr": {"float64": 1e-9, "float32": 1e-5},
    "log_quantile": {"float64": 1e-9, "float32": 1e-6},
}


# The comparison


def value_and_gradient(function, mu, log_sigma, dtype, xla=False):
    """In eager TensorFlow, or compiled by XLA, which is what Keras does on a GPU."""
    point = tf.constant(mu, dtype), tf.constant(log_sigma, dtype)

    def evaluated(*point):
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(*point)
        return [value, *tape.gradient(value, point)]

    results = (tf.function(evaluated, jit_compile=True) if xla else evaluated)(*point)
    assert all(x.dtype == dtype and x.shape == point[0].shape for x in results)
    return [x.numpy().astype(float) for x in results]


def assert_close(actual, true, tolerance, floor, points):
    error = abs(actual - true) / np.maximum(floor, abs(true))
    assert np.all(np.isfinite(actual)), points
    assert error.max() <= tolerance, points[error.argmax()]


def check_expectation(name, dtype, points, *ends, xla=False):
    mu, log_sigma = np.transpose(points)
    function = getattr(truncated_log_normal, name)
    actual = value_and_gradient(lambda *point: function(*point, *ends), mu, log_sigma, dtype, xla)
    true = np.transpose([true_expectation(name, *point, *ends) for point in points])
    assert_close(actual[0], true[0], VALUE_TOLERANCE[dtype], 1 if name == "kl_divergence" else 0, points)
    # Of the mean and the SNR, rounding reaches the derivative in mu multiplied by 1 / sigma.
    floor = 1 if name == "kl_divergence" else np.maximum(1, true[0] * np.exp(-log_sigma))
    assert_close(actual[1], true[1], GRADIENT_TOLERANCE[name][dtype], floor, points)
    assert_close(actual[2], true[2], GRADIENT_TOLERANCE[name][dtype], 1, points)


def check_log_quantile(u, dtype, points, *ends, xla=False):
    """Of one u for all points, or of one for each."""

    def function(mu, log_sigma):
        return truncated_log_normal.log_quantile(tf.constant(u, dtype), mu, log_sigma, *ends)

    actual = value_and_gradient(function, *np.transpose(points), dtype, xla)
    each = np.broadcast_to(u, len(points)).tolist()
    true = np.transpose([true_sample(u, *point, *ends) for u, point in zip(each, points)])
    assert_close(actual[0], true[0], VALUE_TOLERANCE[dtype], 1e-3, points)
    for i in (1, 2):
        assert_close(actual[i], true[i], GRADIENT_TOLERANCE["log_quantile"][dtype], 1, points)


def floats(dtype, *ends):
    return st.floats(*ends, width=int(dtype[-2:]))


def some_points(dtype):
    """mu and log_sigma in [-20, 5], often with mu close to an end of the interval."""
    distance = st.integers(-19, 2).map(lambda k: 2.0**k)
    mu = floats(dtype, -20, 5) | distance.map(lambda x: x - 20) | distance | distance.map(lambda x: -x)
    return st.lists(st.tuples(mu, floats(dtype, -20, 5)), min_size=1, max_size=6)


both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
eager_and_xla = pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
expectations = pytest.mark.parametrize("name", ["kl_divergence", "mean", "snr"])


@both_dtypes
@eager_and_xla
@expectations
def test_expectations_on_a_grid(name, xla, dtype):
    check_expectation(name, dtype, GRID, xla=xla)


@pytest.mark.slow
@both_dtypes
@eager_and_xla
def test_quantiles_on_a_grid(xla, dtype):
    fractions = [*FRACTIONS, 2.0**-24, 1 - 2.0**-24]
    check_log_quantile(np.repeat(fractions, len(GRID)), dtype, [*GRID] * len(fractions), xla=xla)


@pytest.mark.slow
@both_dtypes
@eager_and_xla
def test_quantiles_of_live_units_with_mu_ten_sigma_above_the_interval(xla, dtype):
    points = [(4.375, -0.875), (0.78125, -2.90625), (0.3125, -3.84375)]
    for u in (0.125, 0.875):
        check_log_quantile(u, dtype, points, xla=xla)


@both_dtypes
@expectations
@given(data=st.data())
@settings(max_examples=10)
def test_expectations_anywhere(name, dtype, data):
    check_expectation(name, dtype, data.draw(some_points(dtype)))


@both_dtypes
@given(data=st.data())
@settings(max_examples=20)
def test_quantiles_anywhere(dtype, data):
    u = data.draw(floats(dtype, 2.0**-24, 1 - 2.0**-24))
    check_log_quantile(u, dtype, data.draw(some_points(dtype)))


def test_quantiles_of_small_fractions_far_out_in_a_tail():
    check_log_quantile(1e-9, "float64", [(3.0, -2.0), (4.0, -1.8)])


@pytest.mark.parametrize("ends", [(-5, 1), (-2, 3), (-30, -10)])
def test_other_intervals(ends):
    low, high = ends
    around = (low - 3, low, (low + high) / 2, high, high + 3)
    points = [(mu, log_sigma) for mu in around for log_sigma in (-9, -1, 2)]
    for name in ("kl_divergence", "mean", "snr"):
        check_expectation(name, "float64", points, *ends)
    for u in FRACTIONS[::2]:
        check_log_quantile(u, "float64", points, *ends)


def check_log_evidence_ratio(dtype, points, *ends, xla=False):
    function = tf.function(truncated_log_normal.log_evidence_ratio, jit_compile=xla)
    actual = function(*(tf.constant(values, dtype) for values in np.transpose(points)), *ends)
    true = [float(true_log_evidence_ratio(*map(mp.mpf, point), *ends)) for point in points]
    assert actual.dtype == dtype
    assert_close(actual.numpy().astype(float), np.array(true), VALUE_TOLERANCE[dtype] / 10, 1, points)


@both_dtypes
@eager_and_xla
def test_log_evidence_ratio_on_a_grid(xla, dtype):
    check_log_evidence_ratio(dtype, GRID, xla=xla)


@both_dtypes
@given(data=st.data())
@settings(max_examples=10)
def test_log_evidence_ratio_anywhere(dtype, data):
    check_log_evidence_ratio(dtype, data.draw(some_points(dtype)))


@pytest.mark.parametrize("point", [(-19, -1), (-15, 1), (-3, 1.5), (0, 2), (4, 3)])
def test_log_evidence_ratio_is_the_limit_of_a_narrow_prior_at_the_low_end(point):
    """The integral of q times the reduced prior over p (Friston and Penny, 2011), with a truncated log-normal prior."""
    (mu, log_sigma), width = point, mp.mpf("1e-5")
    sigma = mp.exp(log_sigma)

    def density(x, mean, standard_deviation):
        inside = mass((-20 - mean) / standard_deviation, -mean / standard_deviation)
        return mp.npdf((x - mean) / standard_deviation) / standard_deviation / inside

    cuts = [-20 + width * k for k in (0, 2, 5, 12)]
    integral = mp.quad(lambda x: density(x, mu, sigma) * density(x, -20, width) * 20, cuts)
    actual = truncated_log_normal.log_evidence_ratio(tf.constant([mu], "float64"), tf.constant([log_sigma], "float64"))
    np.testing.assert_allclose(actual, [float(mp.log(integral))], atol=1e-3)


# Properties


@both_dtypes
@pytest.mark.parametrize("u, end", [(0.0, -20), (1.0, 0)])
def test_quantiles_of_0_and_1_are_the_ends_of_the_interval(u, end, dtype):
    mu, log_sigma = np.transpose(GRID)
    sample = functools.partial(truncated_log_normal.log_quantile, tf.constant(u, dtype))
    value, by_mu, by_log_sigma = value_and_gradient(sample, mu, log_sigma, dtype)
    hidden = abs(end - mu) > 8 * np.exp(log_sigma)
    np.testing.assert_allclose(value[~hidden], end, atol=1e-6)
    assert np.all((-20 <= value) & (value <= 0))
    assert np.all(np.isfinite(by_mu) & np.isfinite(by_log_sigma))


@both_dtypes
@given(data=st.data())
@settings(max_examples=25)
def test_quantiles_are_monotonic_and_inside_the_interval(dtype, data):
    points = np.array(data.draw(some_points(dtype)), dtype)
    drawn = data.draw(st.lists(floats(dtype, 0, 1), max_size=8))
    u = np.array(sorted([*np.linspace(0, 1, 33), *drawn]), dtype)[:, None]
    mu, log_sigma = np.tile(points[:, 0], (len(u), 1)), np.tile(points[:, 1], (len(u), 1))
    log_theta = truncated_log_normal.log_quantile(u, mu, log_sigma).numpy()
    # The same u at two positions of a tensor may differ in the last digit.
    assert np.all(np.diff(log_theta, axis=0) >= -20 * np.finfo(np.float64).eps)
    assert np.all((-20 <= log_theta) & (log_theta <= 0))


@both_dtypes
@given(data=st.data())
@settings(max_examples=25)
def test_bounds_of_mean_and_kl_divergence(dtype, data):
    mu, log_sigma = np.array(data.draw(some_points(dtype)), dtype).T
    rounding = 1 + 16 * np.finfo(dtype).eps
    mean = truncated_log_normal.mean(mu, log_sigma).numpy()
    assert np.all((np.exp(-20) / rounding <= mean) & (mean <= rounding))
    assert np.all(truncated_log_normal.kl_divergence(mu, log_sigma).numpy() >= -1e-6)


def test_kl_divergence_vanishes_as_sigma_grows():
    """A wide log-normal, cut to the interval, is nearly the log-uniform prior: small, but not 0."""
    log_sigma = np.linspace(2.0, 5.0, 7)
    kl = truncated_log_normal.kl_divergence(tf.fill(7, tf.constant(-3, "float64")), tf.constant(log_sigma)).numpy()
    assert np.all(np.diff(kl) < 0)
    np.testing.assert_allclose(kl, [true_expectation("kl_divergence", -3.0, x)[0] for x in log_sigma], rtol=1e-6)


@both_dtypes
@given(data=st.data())
@settings(max_examples=25)
def test_for_large_sigma_the_posterior_is_the_prior(dtype, data):
    """Also beyond log sigma = 5: no KL divergence, log theta uniform on the interval."""
    mu, log_sigma, u = (data.draw(floats(dtype, *ends)) for ends in ((-20, 5), (10, 20), (0, 1)))
    point = [tf.constant([x], dtype) for x in (mu, log_sigma)]
    tolerance = 64 * np.finfo(dtype).eps + 1e-10
    np.testing.assert_allclose(truncated_log_normal.kl_divergence(*point), 0, atol=tolerance * max(1, log_sigma))
    np.testing.assert_allclose(truncated_log_normal.mean(*point), (1 - np.exp(-20)) / 20, rtol=1e-4)
    np.testing.assert_allclose(truncated_log_normal.log_quantile(u, *point), 20 * (u - 1), atol=1e-2)


@pytest.mark.parametrize("point", [(0, -5), (0, 1), (-3, 0.5), (-20, 2), (3, 0), (5, -3), (-10, 4)])
def test_samples_average_to_mean_and_kl_divergence(point):
    n = 100_000
    mu, log_sigma = (tf.fill(n + 1, tf.constant(x, "float64")) for x in point)

    def sample(u):
        return truncated_log_normal.log_quantile(u, mu[: len(u)], log_sigma[: len(u)]).numpy()

    mean = np.exp(sample((np.arange(n) + 0.5) / n)).mean()
    np.testing.assert_allclose(mean, truncated_log_normal.mean(mu[0], log_sigma[0]), rtol=1e-4)
    # The density of a sample is the reciprocal of the slope of the quantile.
    slope = np.diff(sample(np.arange(n + 1) / n)) * n
    kl = np.log(20) - np.log(slope).mean()
    np.testing.assert_allclose(kl, truncated_log_normal.kl_divergence(mu[0], log_sigma[0]), atol=1e-3)


@pytest.mark.slow
@both_dtypes
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_shape_in_a_graph(shape, dtype):
    rng = np.random.default_rng(0)
    mu, log_sigma, u = (np.asarray(rng.uniform(*ends, shape)) for ends in ((-20, 5), (-20, 5), (0.01, 0.99)))
    for name in ("kl_divergence", "mean", "snr", "log_quantile"):
        function = getattr(truncated_log_normal, name)
        arguments = [x.astype(dtype) for x in ([u] if name == "log_quantile" else []) + [mu, log_sigma]]
        whole = tf.function(function)(*arguments)
        assert whole.dtype == dtype and whole.shape == shape
        each = [function(*scalars) for scalars in zip(*(x.flat for x in arguments))]
        np.testing.assert_allclose(np.ravel(whole), each, rtol=1e3 * np.finfo(dtype).eps)


def test_a_scalar_fraction_is_broadcast_to_all_units():
    mu, log_sigma = tf.constant([0.0, -3.0, 5.0]), tf.constant([-5.0, 1.0, 0.0])
    scalar, vector = (truncated_log_normal.log_quantile(u, mu, log_sigma) for u in (0.3, tf.fill(3, 0.3)))
    np.testing.assert_array_equal(scalar, vector)
