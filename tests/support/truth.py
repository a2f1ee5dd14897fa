"""The paper's closed forms of the distribution of the noise, evaluated to 80 digits."""

import functools

import mpmath
import numpy as np

# At mu = 5, log sigma = -20 the variance of theta cancels 56 of the digits.
mp = mpmath.mp.clone()
mp.dps = 80

# All exact in float32: the truth is the same for both dtypes. At (1, -3) the interval is 20 sigmas away, where the
# quantile changes its method, at (2, -3) 40, where the normal CDF underflows.
MU = [-20, -20 + 2**-10, -19, -15.5, -7, -1, -(2**-10), 0, 2**-10, 1, 2, 5]
LOG_SIGMA = [-20, -13, -7, -5, -3, -1, 0.5, 2, 5]
GRID = [(mu, log_sigma) for mu in MU for log_sigma in LOG_SIGMA]
FRACTIONS = np.float32([0.001, 0.1, 0.5, 0.9, 0.999]).astype(float).tolist()


def mass(a, b):
    """The mass of N(0, 1) between a and b."""
    return mp.ncdf(b) - mp.ncdf(a) if a < 0 else mp.ncdf(-a) - mp.ncdf(-b)


def true_kl_divergence(mu, log_sigma, low=-20, high=0):
    sigma = mp.exp(log_sigma)
    alpha, beta = (low - mu) / sigma, (high - mu) / sigma
    z = mass(alpha, beta)
    flow = alpha * mp.npdf(alpha) - beta * mp.npdf(beta)
    return mp.log(high - low) - log_sigma - mp.log(z) - mp.log(2 * mp.pi * mp.e) / 2 - flow / (2 * z)


def true_moment(k, mu, log_sigma, low, high):
    sigma = mp.exp(log_sigma)
    alpha, beta = (low - mu) / sigma, (high - mu) / sigma
    ratio = mass(alpha - k * sigma, beta - k * sigma) / mass(alpha, beta)
    return mp.exp(k * mu + (k * sigma) ** 2 / 2) * ratio


def true_mean(mu, log_sigma, low=-20, high=0):
    return true_moment(1, mu, log_sigma, low, high)


def true_snr(mu, log_sigma, low=-20, high=0):
    first = true_moment(1, mu, log_sigma, low, high)
    return first / mp.sqrt(true_moment(2, mu, log_sigma, low, high) - first**2)


def true_log_evidence_ratio(mu, log_sigma, low=-20, high=0):
    sigma = mp.exp(log_sigma)
    alpha, beta = (low - mu) / sigma, (high - mu) / sigma
    return mp.log(high - low) + mp.log(mp.npdf(alpha)) - log_sigma - mp.log(mass(alpha, beta))


def true_cdf(log_theta, mu, log_sigma, low=-20, high=0):
    sigma = mp.exp(log_sigma)
    alpha, beta, z = ((end - mu) / sigma for end in (low, high, log_theta))
    return mass(alpha, z) / mass(alpha, beta)


def true_log_quantile(u, mu, log_sigma, low=-20, high=0):
    """Newton's method on the log of the CDF: it is concave, so no step from the left of the root overshoots."""
    if 2 * mu < low + high:
        return -true_log_quantile(1 - u, -mu, log_sigma, -high, -low)
    sigma = mp.exp(log_sigma)
    alpha, beta = (low - mu) / sigma, (high - mu) / sigma
    target = u * mass(alpha, beta)
    z, step = min(beta, mp.mpf(0)), mp.inf
    while abs(step) > mp.mpf(10) ** -40:
        below = mass(alpha, z)
        step = mp.log(below / target) * below / mp.npdf(z)
        z = max(z - step, (z + alpha) / 2)
    return mu + sigma * z


@functools.cache
def true_expectation(name, mu, log_sigma, *ends):
    """Value, derivative in mu, derivative in log_sigma."""
    point = mp.mpf(mu), mp.mpf(log_sigma)

    def function(mu, log_sigma):
        return globals()[f"true_{name}"](mu, log_sigma, *ends)

    return [float(x) for x in (function(*point), mp.diff(function, point, (1, 0)), mp.diff(function, point, (0, 1)))]


@functools.cache
def true_sample(u, mu, log_sigma, *ends):
    """Value, derivative in mu, derivative in log_sigma: those of the CDF, by the implicit function theorem."""
    u, mu, log_sigma = mp.mpf(u), mp.mpf(mu), mp.mpf(log_sigma)
    point = true_log_quantile(u, mu, log_sigma, *ends), mu, log_sigma
    cdf = functools.partial(lambda ends, *point: true_cdf(*point, *ends), ends)
    density, by_mu, by_log_sigma = (mp.diff(cdf, point, n) for n in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return [float(x) for x in (point[0], -by_mu / density, -by_log_sigma / density)]
