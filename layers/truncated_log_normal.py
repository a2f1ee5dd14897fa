"""The truncated log-normal distribution of the noise, exact where the paper's formulas overflow.

The posterior of a unit's noise is log theta ~ N(mu, sigma^2), truncated to [low, high]; the prior is log-uniform on the
same interval. The paper's closed forms divide differences of normal CDFs by one another: in float32 they overflow or
cancel in most of the region that training visits. This module computes them in two other ways.

Expectations (the KL divergence, the mean, the SNR) are integrals of a smooth function over the range where the density
exceeds rounding error, so Gauss-Legendre quadrature (Golub and Welsch, 1969) gives them to the last digits: every term
of its sum is positive, so nothing cancels. Distances are measured from the mode, so nothing overflows either.

The quantile inverts the normal CDF from the shorter tail; where both ends of the interval lie so far out in one tail
that the CDF underflows, it solves the CDF's asymptotic expansion (`normal.py`).

Everything is elementwise, in the dtype of `mu` (float32 or float64), with first derivatives in mu and log_sigma, on any
backend of Keras. Exact for mu and log_sigma in [-20, 5] and beyond.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_sbp.layers import normal
from keras_sbp.layers.normal import Tensor

LOW, HIGH = -20.0, 0.0

# Nodes and weights of the quadrature, and where it cuts the tails: where the density has fallen to exp(-reach^2 / 2) of
# its peak. For mu and log_sigma in [-20, 5] the error is 1e-11 in float64, and that of rounding in float32: see
# tests/test_truncated_log_normal.py.
_RULE = {"float64": np.polynomial.legendre.leggauss(48), "float32": np.polynomial.legendre.leggauss(24)}
_REACH = {"float64": 8.0, "float32": 6.5}

# In float32, closer than this many standard deviations to an end, the quantile is refined.
_NEAR = 0.5


def kl_divergence(mu: Tensor, log_sigma: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """KL(q || p) from the truncated log-normal q to the log-uniform prior p on [low, high], in nats.

    Args:
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of that shape and dtype, >= 0 up to rounding.
    """
    variables = ops.convert_to_tensor(mu), ops.convert_to_tensor(log_sigma)
    mu, log_sigma = map(ops.stop_gradient, variables)
    s, exponent, length = _quadrature(mu, log_sigma, low, high, moment=0)
    density, (_, weights) = ops.exp(exponent), _rule(mu)
    mass = _integral(density, weights)

    def average(values):
        return _integral(density * values, weights) / mass

    average_exponent = average(exponent)
    log_mass = ops.log(length * mass)
    kl = math.log(high - low) - log_sigma + average_exponent - log_mass

    # The entropy's derivatives are covariances of log q with the score: z and z^2, up to constants. With the mode
    # inside, log q is even and z odd; what truncation leaves of their covariance flows through the ends.
    sigma = ops.exp(log_sigma)

    def flow(end):
        end_exponent = -(((end - mu) / sigma) ** 2) / 2
        return ops.exp(end_exponent - log_mass) * (end_exponent - average_exponent - 1)

    inside = (low < mu) & (mu < high)
    # Hardly a digit cancels: s and the exponent are measured from the mode, where both are 0.
    covariance = average(exponent * s) - average_exponent * average(s)
    by_mu = ops.where(inside, flow(low) - flow(high), covariance) / sigma
    by_log_sigma = -2 * (average(exponent**2) - average_exponent**2)
    return _with_derivatives(kl, variables, (by_mu, by_log_sigma))


def mean(mu: Tensor, log_sigma: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """E theta, of the shape and dtype of mu and log_sigma, in [e^low, e^high]."""
    mu, log_sigma = ops.convert_to_tensor(mu), ops.convert_to_tensor(log_sigma)
    s, exponent, _ = _quadrature(mu, log_sigma, low, high, moment=1)
    probability = _probability(s, exponent, mu, log_sigma)
    # theta relative to its value at the mode, minus 1: a small sigma does not cancel in the derivative.
    ratio = ops.expm1(s * ops.exp(ops.stop_gradient(log_sigma))[..., None])
    return ops.exp(ops.clip(ops.stop_gradient(mu), low, high)) * (1 + ops.sum(probability * ratio, -1))


def snr(mu: Tensor, log_sigma: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """The signal-to-noise ratio E theta / sqrt(Var theta), of the shape and dtype of mu and log_sigma."""
    mu, log_sigma = ops.convert_to_tensor(mu), ops.convert_to_tensor(log_sigma)
    s, exponent, _ = _quadrature(mu, log_sigma, low, high, moment=2)
    probability = _probability(s, exponent, mu, log_sigma)
    # theta relative to its value at the mode, minus 1, over the length of the support: a small sigma neither cancels in
    # it nor underflows in its square.
    log_ratio = s * ops.exp(ops.stop_gradient(log_sigma))[..., None]
    length = log_ratio[..., -1:] - log_ratio[..., :1]
    ratio = ops.expm1(log_ratio) / length
    average = ops.sum(probability * ratio, -1, keepdims=True)
    standard_deviation = ops.sqrt(ops.sum(probability * (ratio - average) ** 2, -1))
    return (1 / length + average)[..., 0] / standard_deviation


def log_evidence_ratio(mu: Tensor, log_sigma: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """The change of the log evidence, in nats, when the prior of theta shrinks to the point e^low: the unit is removed.

    Bayesian model reduction, BMRS_N of Wright, Igel, Selvan: "BMRS: Bayesian Model Reduction for Structured Pruning",
    NeurIPS 2024, in the limit of a reduced prior of zero width: log(q / p) at `low`, as densities of log theta.

    Args:
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of that shape and dtype; not meant to be differentiated.
    """
    mu, log_sigma = ops.convert_to_tensor(mu), ops.convert_to_tensor(log_sigma)
    sigma = ops.exp(log_sigma)
    mode = ops.clip(mu, low, high)
    # From the mode, in units of sigma: to the peak of N(mu, sigma^2), and to `low`.
    peak, to_low = (mu - mode) / sigma, (low - mode) / sigma
    at_low = to_low * (peak - to_low / 2)
    return math.log(high - low) - log_sigma + at_low - ops.log(_relative_mass(mu, log_sigma, low, high))


def log_quantile(u: Tensor, mu: Tensor, log_sigma: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """The value of log theta below which a fraction u of the mass lies: a sample, if u is uniform.

    On TensorFlow computed in float64 and rounded once; elsewhere in the dtype of mu, as accelerators have no float64 or
    a slow one. In float32 it is off by rounding, in log theta and in the distance to an end; its derivatives by 1e-5.

    Args:
        u: in [0, 1], of the shape of mu or broadcast to it; not differentiated.
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of the shape and dtype of mu, in [low, high].
    """
    given = _dtype(ops.convert_to_tensor(mu))
    # The published results are of samples in float64.
    dtype = "float64" if keras.backend.backend() == "tensorflow" else given
    u, *variables = (ops.cast(x, dtype) for x in (u, mu, log_sigma))
    u, mu, log_sigma = map(ops.stop_gradient, (u, *variables))
    sigma = ops.exp(log_sigma)
    alpha, beta, width = (low - mu) / sigma, (high - mu) / sigma, (high - low) / sigma

    # From the shorter tail, in which the CDF keeps its digits.
    mass = ops.where(alpha > 0, normal.cdf(-alpha) - normal.cdf(-beta), normal.cdf(beta) - normal.cdf(alpha))
    lower, upper = normal.cdf(alpha) + u * mass, normal.cdf(-beta) + (1 - u) * mass
    shorter = normal.lower_quantile(ops.where(lower < upper, lower, upper))
    z = ops.clip(ops.where(lower < upper, shorter, -shorter), alpha, beta)
    log_theta, to_low, to_high = mu + sigma * z, z - alpha, beta - z

    # Both ends far out in one tail: s to the nearer end.
    from_low, from_high = alpha > normal.FAR[dtype], beta < -normal.FAR[dtype]
    # Training seldom gets there: compute it only when needed.
    s = ops.cond(
        ops.any(from_low | from_high),
        lambda: normal.tail_quantile(u, alpha, beta, width, from_low, from_high),
        lambda: ops.zeros_like(mu),
    )
    if dtype == "float32":
        # Close to an end, z - alpha and beta - z have lost their digits.
        shorter, is_low = ops.minimum(to_low, to_high), to_low < to_high
        near = ~(from_low | from_high) & (shorter < _NEAR)
        s = ops.where(near, _refined(shorter, is_low, u, mu, log_sigma, low, high), s)
        from_low, from_high = from_low | (near & is_low), from_high | (near & ~is_low)
    log_theta = ops.where(from_low, low + sigma * s, ops.where(from_high, high - sigma * s, log_theta))
    log_theta = ops.clip(log_theta, low, high)
    to_low = ops.where(from_low, s, ops.where(from_high, width - s, to_low))
    to_high = ops.where(from_low, width - s, ops.where(from_high, s, to_high))

    # F(log theta; mu, sigma) = u, differentiated implicitly: how much of the density at either end moves along.
    at_low = ops.exp(ops.log1p(-u) + to_low * (alpha + to_low / 2))
    at_high = ops.exp(ops.log(u) + to_high * (to_high / 2 - beta))
    by_mu = 1 - at_low - at_high
    by_log_sigma = log_theta - mu - (low - mu) * at_low - (high - mu) * at_high
    return ops.cast(_with_derivatives(log_theta, variables, (by_mu, by_log_sigma)), given)


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def _rule(tensor):
    """The nodes of the quadrature, in [-1, 1], and its weights, which sum to 1: (nodes,) in the dtype of a tensor."""
    nodes, weights = _RULE[_dtype(tensor)]
    return ops.convert_to_tensor(nodes, tensor.dtype), ops.convert_to_tensor(weights / 2, tensor.dtype)


def _integral(values, weights):
    """The weighted sum of values (..., nodes): (...)."""
    # Not tensordot, which Keras computes in float32 on PyTorch.
    sums = ops.reshape(values, (-1, weights.shape[0])) @ weights[:, None]
    return ops.reshape(sums, ops.shape(values)[:-1])


def _relative_mass(mu, log_sigma, low, high):
    """The mass of the interval, divided by the density at its peak and by sigma: of the shape of mu."""
    _, exponent, length = _quadrature(mu, log_sigma, low, high, moment=0)
    return length * _integral(ops.exp(exponent), _rule(mu)[1])


def _quadrature(mu, log_sigma, low, high, moment):
    """The nodes of a quadrature for E theta^k, k <= moment.

    Returns:
        s: (..., nodes), distances from the mode of the density, in units of sigma.
        exponent: (..., nodes), log of the density relative to its peak.
        length: (...), of the range that the nodes cover, in units of sigma.
    """
    m, sigma = ops.stop_gradient(mu), ops.exp(ops.stop_gradient(log_sigma))
    alpha, beta, width = (low - m) / sigma, (high - m) / sigma, (high - low) / sigma

    # In units of sigma: where the density peaks in the interval, and how far it reaches below and, for theta^k times
    # the density, which is that of N(mu + k sigma^2, sigma^2), above.
    zero = ops.zeros_like(m)
    mode = ops.where(beta < 0, beta, ops.where(alpha > 0, alpha, zero))
    to_low = ops.where(beta < 0, width, mode - alpha)
    to_high = ops.where(alpha > 0, width, beta - mode)
    reach = _REACH[_dtype(mu)]
    shifted = ops.clip(moment * sigma - mode, zero, to_high)
    below = ops.clip(_distance(ops.abs(mode), reach), zero, to_low)
    above = ops.clip(shifted + _distance(ops.abs(moment * sigma - mode - shifted), reach), zero, to_high)

    length = above + below
    s = (length / 2)[..., None] * _rule(mu)[0] + ((above - below) / 2)[..., None]
    return s, -s * (mode[..., None] + s / 2), length


def _probability(s, exponent, mu, log_sigma):
    """The probability mass of each node of `_quadrature`, summing to 1: (..., nodes).

    Its derivative is that of the density at a fixed theta, so that the sum of probability * f(theta) has the derivative
    of E f(theta).
    """
    # Zero, with the derivatives that the log density has up to a constant.
    by_mu = ((mu - ops.stop_gradient(mu)) / ops.exp(ops.stop_gradient(log_sigma)))[..., None]
    by_log_sigma = (log_sigma - ops.stop_gradient(log_sigma))[..., None]
    log_weights = ops.convert_to_tensor(np.log(_RULE[_dtype(mu)][1]), mu.dtype)
    return ops.softmax(exponent + log_weights + s * by_mu - 2 * exponent * by_log_sigma)


def _with_derivatives(value, variables, derivatives):
    """The value, with these derivatives in these variables, and no others."""
    for variable, derivative in zip(variables, derivatives):
        value += derivative * (variable - ops.stop_gradient(variable))
    return value


def _distance(slope, reach):
    """The s > 0 at which slope * s + s^2 / 2 = reach^2 / 2."""
    return reach**2 / (slope + ops.sqrt(slope**2 + reach**2))


def _refined(s, from_low, u, mu, log_sigma, low, high):
    """The distance of the quantile from an end of the interval, to its last digits, by one step of Newton's method.

    The mass between them is an integral by quadrature: as a difference of CDFs it would cancel.

    Args:
        s: that distance, up to an error of about 1e-6, in units of sigma; from `low` or from `high`.
    """
    sigma = ops.exp(log_sigma)
    alpha, beta = (low - mu) / sigma, (high - mu) / sigma
    x, mode = ops.where(from_low, alpha, -beta), ops.clip(ops.zeros_like(mu), alpha, beta)
    # Relative to the density at the end, which is that at the mode times exp(-(x^2 - mode^2) / 2).
    # Where that overflows, the quantile is at the end.
    mass = _relative_mass(mu, log_sigma, low, high) * ops.exp(ops.minimum((x**2 - mode**2) / 2, 80.0))
    nodes, weights = _rule(mu)
    r = s[..., None] * (nodes + 1) / 2
    between = s * _integral(ops.exp(-r * (x[..., None] + r / 2)), weights)
    step = (ops.where(from_low, u, 1 - u) * mass - between) * ops.exp(s * (x + s / 2))
    return ops.clip(s + step, ops.zeros_like(s), (high - low) / sigma)
