"""The truncated log-normal distribution of the noise, exact where the paper's formulas overflow.

The posterior of a unit's noise is log theta ~ N(mu, sigma^2), truncated to [low, high]; the prior is log-uniform on the
same interval. The paper's closed forms divide differences of normal CDFs by one another: in float32 they overflow or
cancel in most of the region that training visits. This module computes them in two other ways.

Expectations (the KL divergence, the mean, the SNR) are integrals of a smooth function over the range where the density
exceeds rounding error, so Gauss-Legendre quadrature (Golub and Welsch, 1969) gives them to the last digits: every term
of its sum is positive, so nothing cancels. Distances are measured from the mode, so nothing overflows either.

The quantile inverts the normal CDF from the shorter tail; where both ends of the interval lie so far out in one tail
that the CDF underflows, it solves the CDF's asymptotic expansion (Abramowitz and Stegun, 26.2.12).

Everything is elementwise, in the dtype of `mu` (float32 or float64), with first derivatives in mu and log_sigma. Exact
for mu and log_sigma in [-20, 5] and beyond.
"""

import math

import numpy as np
import tensorflow as tf

LOW, HIGH = -20.0, 0.0

# Nodes and weights of the quadrature, and where it cuts the tails: where the density has fallen to exp(-reach^2 / 2) of
# its peak. For mu and log_sigma in [-20, 5] the error is 1e-11 in float64, and that of rounding in float32: see
# tests/test_truncated_log_normal.py.
_RULE = {tf.float64: np.polynomial.legendre.leggauss(48), tf.float32: np.polynomial.legendre.leggauss(24)}
_REACH = {tf.float64: 8.0, tf.float32: 6.5}

# Beyond this many standard deviations the quantile uses the asymptotic expansion; the normal CDF underflows at 37.
_FAR = 20.0


def kl_divergence(mu: tf.Tensor, log_sigma: tf.Tensor, low: float = LOW, high: float = HIGH) -> tf.Tensor:
    """KL(q || p) from the truncated log-normal q to the log-uniform prior p on [low, high], in nats.

    Args:
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of that shape and dtype, >= 0 up to rounding.
    """

    @tf.custom_gradient
    def kl_divergence_(mu, log_sigma):
        s, exponent, length = _quadrature(mu, log_sigma, low, high, moment=0)
        density, weights = tf.exp(exponent), tf.constant(_RULE[mu.dtype][1] / 2, mu.dtype)
        mass = tf.tensordot(density, weights, 1)

        def average(values):
            return tf.tensordot(density * values, weights, 1) / mass

        average_exponent = average(exponent)
        log_mass = tf.math.log(length * mass)
        kl = math.log(high - low) - log_sigma + average_exponent - log_mass

        def gradient(upstream):
            # The entropy's derivatives are covariances of log q with the score: z and z^2, up to constants. With the
            # mode inside, log q is even and z odd; what truncation leaves of their covariance flows through the ends.
            sigma = tf.exp(log_sigma)

            def flow(end):
                end_exponent = -(((end - mu) / sigma) ** 2) / 2
                return tf.exp(end_exponent - log_mass) * (end_exponent - average_exponent - 1)

            inside = (low < mu) & (mu < high)
            # Hardly a digit cancels: s and the exponent are measured from the mode, where both are 0.
            covariance = average(exponent * s) - average_exponent * average(s)
            by_mu = tf.where(inside, flow(low) - flow(high), covariance) / sigma
            by_log_sigma = -2 * (average(exponent**2) - average_exponent**2)
            return upstream * by_mu, upstream * by_log_sigma

        return kl, gradient

    return kl_divergence_(tf.convert_to_tensor(mu), tf.convert_to_tensor(log_sigma))


def mean(mu: tf.Tensor, log_sigma: tf.Tensor, low: float = LOW, high: float = HIGH) -> tf.Tensor:
    """E theta, of the shape and dtype of mu and log_sigma, in [e^low, e^high]."""
    mu, log_sigma = tf.convert_to_tensor(mu), tf.convert_to_tensor(log_sigma)
    s, exponent, _ = _quadrature(mu, log_sigma, low, high, moment=1)
    probability = _probability(s, exponent, mu, log_sigma)
    # theta relative to its value at the mode, minus 1: a small sigma does not cancel in the derivative.
    ratio = tf.math.expm1(s * tf.exp(tf.stop_gradient(log_sigma))[..., None])
    return tf.exp(tf.clip_by_value(tf.stop_gradient(mu), low, high)) * (1 + tf.reduce_sum(probability * ratio, -1))


def snr(mu: tf.Tensor, log_sigma: tf.Tensor, low: float = LOW, high: float = HIGH) -> tf.Tensor:
    """The signal-to-noise ratio E theta / sqrt(Var theta), of the shape and dtype of mu and log_sigma."""
    mu, log_sigma = tf.convert_to_tensor(mu), tf.convert_to_tensor(log_sigma)
    s, exponent, _ = _quadrature(mu, log_sigma, low, high, moment=2)
    probability = _probability(s, exponent, mu, log_sigma)
    # theta relative to its value at the mode, minus 1, over the length of the support: a small sigma neither cancels in
    # it nor underflows in its square.
    log_ratio = s * tf.exp(tf.stop_gradient(log_sigma))[..., None]
    length = log_ratio[..., -1:] - log_ratio[..., :1]
    ratio = tf.math.expm1(log_ratio) / length
    average = tf.reduce_sum(probability * ratio, -1, keepdims=True)
    standard_deviation = tf.sqrt(tf.reduce_sum(probability * (ratio - average) ** 2, -1))
    return (1 / length + average)[..., 0] / standard_deviation


def log_evidence_ratio(mu: tf.Tensor, log_sigma: tf.Tensor, low: float = LOW, high: float = HIGH) -> tf.Tensor:
    """The change of the log evidence, in nats, when the prior of theta shrinks to the point e^low: the unit is removed.

    Bayesian model reduction, BMRS_N of Wright, Igel, Selvan: "BMRS: Bayesian Model Reduction for Structured Pruning",
    NeurIPS 2024, in the limit of a reduced prior of zero width: log(q / p) at `low`, as densities of log theta.

    Args:
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of that shape and dtype; not meant to be differentiated.
    """
    mu, log_sigma = tf.convert_to_tensor(mu), tf.convert_to_tensor(log_sigma)
    _, exponent, length = _quadrature(mu, log_sigma, low, high, moment=0)
    mass = tf.tensordot(tf.exp(exponent), tf.constant(_RULE[mu.dtype][1] / 2, mu.dtype), 1)
    sigma = tf.exp(log_sigma)
    mode = tf.clip_by_value(mu, low, high)
    # From the mode, in units of sigma: to the peak of N(mu, sigma^2), and to `low`.
    peak, to_low = (mu - mode) / sigma, (low - mode) / sigma
    at_low = to_low * (peak - to_low / 2)
    return math.log(high - low) - log_sigma + at_low - tf.math.log(length * mass)


def log_quantile(u: tf.Tensor, mu: tf.Tensor, log_sigma: tf.Tensor, low: float = LOW, high: float = HIGH) -> tf.Tensor:
    """The value of log theta below which a fraction u of the mass lies: a sample, if u is uniform.

    Computed in float64 and rounded once: close to an end, float32 could not tell 1 - u from 1.

    Args:
        u: in [0, 1], of the shape of mu or broadcast to it; not differentiated.
        mu, log_sigma: of equal shape, float32 or float64.
    Returns:
        Of the shape and dtype of mu, in [low, high].
    """

    @tf.custom_gradient
    def log_quantile_(u, mu, log_sigma):
        sigma = tf.exp(log_sigma)
        alpha, beta, width = (low - mu) / sigma, (high - mu) / sigma, (high - low) / sigma

        # From the shorter tail, in which the CDF keeps its digits.
        mass = tf.where(alpha > 0, _cdf(-alpha) - _cdf(-beta), _cdf(beta) - _cdf(alpha))
        lower, upper = _cdf(alpha) + u * mass, _cdf(-beta) + (1 - u) * mass
        shorter = _normal_quantile(tf.minimum(lower, upper))
        z = tf.clip_by_value(tf.where(lower < upper, shorter, -shorter), alpha, beta)
        log_theta = tf.clip_by_value(mu + sigma * z, low, high)
        to_low, to_high = z - alpha, beta - z

        # Both ends far out in one tail: x to the nearer end, x + s to the quantile.
        far_low, far_high = alpha > _FAR, beta < -_FAR
        x = tf.where(far_low, alpha, tf.where(far_high, -beta, _FAR * tf.ones_like(mu)))
        # Training seldom gets there: compute it only when needed.
        s = tf.cond(
            tf.reduce_any(far_low | far_high),
            lambda: _tail_quantile(tf.where(far_low, u, 1 - u), tf.where(far_low, 1 - u, u), x, width),
            lambda: tf.zeros_like(mu),
        )
        log_theta = tf.where(far_low, low + sigma * s, tf.where(far_high, high - sigma * s, log_theta))
        to_low = tf.where(far_low, s, tf.where(far_high, width - s, to_low))
        to_high = tf.where(far_low, width - s, tf.where(far_high, s, to_high))

        def gradient(upstream):
            # F(log theta; mu, sigma) = u, differentiated implicitly: how much of the density at either end moves along.
            at_low = tf.exp(tf.math.log1p(-u) + to_low * (alpha + to_low / 2))
            at_high = tf.exp(tf.math.log(u) + to_high * (to_high / 2 - beta))
            by_mu = 1 - at_low - at_high
            by_log_sigma = log_theta - mu - (low - mu) * at_low - (high - mu) * at_high
            return None, upstream * by_mu, upstream * by_log_sigma

        return log_theta, gradient

    dtype = tf.convert_to_tensor(mu).dtype
    return tf.cast(log_quantile_(*(tf.cast(x, tf.float64) for x in (u, mu, log_sigma))), dtype)


def _quadrature(mu, log_sigma, low, high, moment):
    """The nodes of a quadrature for E theta^k, k <= moment.

    Returns:
        s: (..., nodes), distances from the mode of the density, in units of sigma.
        exponent: (..., nodes), log of the density relative to its peak.
        length: (...), of the range that the nodes cover, in units of sigma.
    """
    dtype, m, sigma = mu.dtype, tf.stop_gradient(mu), tf.exp(tf.stop_gradient(log_sigma))
    alpha, beta, width = (low - m) / sigma, (high - m) / sigma, (high - low) / sigma

    # In units of sigma: where the density peaks in the interval, and how far it reaches below and, for theta^k times
    # the density, which is that of N(mu + k sigma^2, sigma^2), above.
    zero = tf.zeros_like(m)
    mode = tf.where(beta < 0, beta, tf.where(alpha > 0, alpha, zero))
    to_low = tf.where(beta < 0, width, mode - alpha)
    to_high = tf.where(alpha > 0, width, beta - mode)
    reach = _REACH[dtype]
    shifted = tf.clip_by_value(moment * sigma - mode, zero, to_high)
    below = tf.minimum(to_low, _distance(tf.abs(mode), reach))
    above = tf.minimum(to_high, shifted + _distance(tf.abs(moment * sigma - mode - shifted), reach))

    length = above + below
    s = (length / 2)[..., None] * tf.constant(_RULE[dtype][0], dtype) + ((above - below) / 2)[..., None]
    return s, -s * (mode[..., None] + s / 2), length


def _probability(s, exponent, mu, log_sigma):
    """The probability mass of each node of `_quadrature`, summing to 1: (..., nodes).

    Its derivative is that of the density at a fixed theta, so that the sum of probability * f(theta) has the derivative
    of E f(theta).
    """
    # Zero, with the derivatives that the log density has up to a constant.
    by_mu = ((mu - tf.stop_gradient(mu)) / tf.exp(tf.stop_gradient(log_sigma)))[..., None]
    by_log_sigma = (log_sigma - tf.stop_gradient(log_sigma))[..., None]
    log_weights = tf.constant(np.log(_RULE[mu.dtype][1]), mu.dtype)
    return tf.nn.softmax(exponent + log_weights + s * by_mu - 2 * exponent * by_log_sigma)


def _distance(slope, reach):
    """The s > 0 at which slope * s + s^2 / 2 = reach^2 / 2."""
    return reach**2 / (slope + tf.sqrt(slope**2 + reach**2))


def _cdf(z):
    return tf.math.erfc(-z * math.sqrt(0.5)) / 2


def _normal_quantile(p):
    """The z <= 0 with Phi(z) = p, for p in [0, 1/2]; -inf for 0.

    Abramowitz and Stegun, 26.2.23, which is off by less than 4.5e-4, and two steps of Halley's method on log Phi. Not
    tf.math.ndtri: XLA computes it from 2 p - 1, in which a small p is lost.
    """
    tiny = 1e-300
    q = tf.maximum(p, tiny)
    t = tf.sqrt(-2 * tf.math.log(q))
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for _ in range(2):
        cdf = _cdf(z)
        hazard = tf.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * cdf)
        newton = tf.math.log(cdf / q) / hazard
        z -= newton / (1 + newton * (z + hazard) / 2)
    return tf.where(p < tiny, tf.constant(-math.inf, z.dtype), z)


def _tail_quantile(u, rest, x, width):
    """The s in [0, width] with Q(x) - Q(x + s) = u * (Q(x) - Q(x + width)); Q: upper tail of N(0, 1), x >= _FAR.

    rest: 1 - u, with the digits that the subtraction would lose.
    """
    log_ratio = -width * (x + width / 2) + _log_mills(x + width) - _log_mills(x)
    left = tf.where(u < rest, tf.math.log1p(u * tf.math.expm1(log_ratio)), tf.math.log(rest + u * tf.exp(log_ratio)))
    target = tf.minimum(-left, -log_ratio)
    # Q(x + s) / Q(x) = exp(-s (x + s / 2)) mills(x + s) / mills(x), and the second factor hardly changes: a fixed
    # point iteration that gains a factor of x^2 >= 400 each time.
    exponent = target
    for _ in range(5):
        s = 2 * exponent / (x + tf.sqrt(x**2 + 2 * exponent))
        exponent = target + _log_mills(x + s) - _log_mills(x)
    return tf.minimum(s, width)


def _log_mills(x):
    """log of Q(x) / density(x) for x >= _FAR, to 1e-11 (Abramowitz and Stegun, 26.2.12)."""
    y = 1 / x**2
    return tf.math.log1p(-y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y * (1 - 9 * y))))) - tf.math.log(x)
