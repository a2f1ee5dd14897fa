"""The standard normal distribution as the quantile of the truncated log-normal needs it: its CDF and inverses of it.

Elementwise, in float32 or float64, on any backend of Keras.
"""

import math
from typing import Any

import keras
from keras import ops

Tensor = Any  # one of Keras's backend

# Beyond this many standard deviations `tail_quantile` is exact; the CDF underflows at 37, in float32 at 13.
FAR = {"float64": 20.0, "float32": 10.0}
# What `lower_quantile` takes for 0, as it computes the logarithm.
TINY = {"float64": 1e-300, "float32": 1e-37}


def cdf(z: Tensor) -> Tensor:
    """Phi(z), with all its digits for z < 0."""
    return ops.erfc(-z * math.sqrt(0.5)) / 2


def lower_quantile(p: Tensor) -> Tensor:
    """The z <= 0 with Phi(z) = p, for p in [0, 1/2]; -inf for 0.

    Abramowitz and Stegun, 26.2.23, which is off by less than 4.5e-4, and two steps of Halley's method on log Phi. Not
    TensorFlow's ndtri: XLA computes it from 2 p - 1, in which a small p is lost.
    """
    tiny = TINY[keras.backend.standardize_dtype(p.dtype)]
    q = ops.where(p < tiny, tiny, p)
    t = ops.sqrt(-2 * ops.log(q))
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t
    for _ in range(2):
        below = cdf(z)
        hazard = ops.exp(-(z**2) / 2) / (math.sqrt(2 * math.pi) * below)
        newton = ops.log(below / q) / hazard
        z -= newton / (1 + newton * (z + hazard) / 2)
    return ops.where(p < tiny, -math.inf, z)


def tail_quantile(u: Tensor, alpha: Tensor, beta: Tensor, width: Tensor, from_low: Tensor, from_high: Tensor) -> Tensor:
    """The distance of a quantile from the nearer end of an interval [alpha, beta] that lies far out in a tail.

    Args:
        u: the fraction of the interval's mass below the quantile.
        width: beta - alpha, with all its digits.
        from_low, from_high: alpha > FAR and beta < -FAR; elsewhere the result has no meaning.
    """
    # The s in [0, width] with Q(x) - Q(x + s) = u * (Q(x) - Q(x + width)); Q: upper tail of N(0, 1).
    x = ops.where(from_low, alpha, ops.where(from_high, -beta, FAR[keras.backend.standardize_dtype(u.dtype)]))
    # rest: 1 - u, with the digits that the subtraction would lose.
    u, rest = ops.where(from_low, u, 1 - u), ops.where(from_low, 1 - u, u)
    log_ratio = -width * (x + width / 2) + _log_mills(x + width) - _log_mills(x)
    left = ops.where(u < rest, ops.log1p(u * ops.expm1(log_ratio)), ops.log(rest + u * ops.exp(log_ratio)))
    zero = ops.zeros_like(u)
    target = ops.clip(-left, zero, -log_ratio)
    # Q(x + s) / Q(x) = exp(-s (x + s / 2)) mills(x + s) / mills(x), and the second factor hardly changes: a fixed
    # point iteration that gains a factor of x^2 >= 100 each time.
    exponent = target
    for _ in range(5):
        s = 2 * exponent / (x + ops.sqrt(x**2 + 2 * exponent))
        exponent = target + _log_mills(x + s) - _log_mills(x)
    return ops.clip(s, zero, width)


def _log_mills(x):
    """log of Q(x) / density(x) for x >= FAR, to 1e-11, in float32 1e-7 (Abramowitz and Stegun, 26.2.12)."""
    y = 1 / x**2
    return ops.log1p(-y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y * (1 - 9 * y))))) - ops.log(x)
