"""The layer of Structured Bayesian Pruning (Neklyudov et al., NIPS 2017): log-normal noise that multiplies a unit."""

import contextlib
import threading

import keras
import tensorflow as tf

from keras_sbp.layers import truncated_log_normal

# What mu and log sigma are clipped to; the distribution is exact on all of it.
BOX = (-20.0, 5.0)
RULES = ("snr", "evidence")
# Nats of evidence that a unit has to be worth to stay. One that does nothing is worth 0 once its posterior is the prior,
# and a little more before that, as BOX and the length of a training leave it; less than a factor e is "not worth more
# than a bare mention" (the grades of Kass and Raftery, "Bayes Factors", 1995).
WORTH = 1.0


def _clip(parameter):
    return tf.clip_by_value(parameter, *BOX)


def parameters(layers):
    """mu and log sigma of the units of all these layers: (units,) float32 each."""
    return [tf.concat([getattr(layer, name).value for layer in layers], 0) for name in ("mu", "log_sigma")]


def _samples(layers):
    """One theta a unit of each layer, from one call of the quantile."""
    # The middle of one of 2^23 equal cells: an end of the interval is never drawn.
    u = [keras.random.uniform(layer.mu.shape, seed=layer.seed_generator, dtype="float32") for layer in layers]
    theta = tf.exp(truncated_log_normal.log_quantile(tf.concat(u, 0) + 2.0**-24, *parameters(layers)))
    return tf.split(theta, [layer.mu.shape[0] for layer in layers])


@contextlib.contextmanager
def one_draw(layers):
    """Within it, the SBP layers have one sample each, drawn for all of them at once: fewer and larger operations."""
    try:
        for layer, theta in zip(layers, _samples(layers) if layers else []):
            layer.drawn = theta
        yield
    finally:
        for layer in layers:
            layer.drawn = None


@keras.saving.register_keras_serializable(package="sbp")
class SBP(keras.layers.Layer):
    """Multiplies each unit, that is each index of the last axis, by its own noise theta > 0.

    In training theta is a sample, one a unit a step, shared by the examples and positions of a batch; at test time it
    is E theta, or 0 for a unit that is not `alive()`: such a unit can be taken out.

    Inputs and outputs: (batch, ..., units), any rank from 2 up. mu and log_sigma: (units,), float32 also under mixed
    precision, where only the product is rounded. They are trained by whoever adds the KL divergence to the loss: `fit`
    does, if `kl_weight` is more than 0.

    A layer that is called in several places of a network is the same noise in all of them: within a tf.function, with
    the same sample. Its KL divergence counts once.

    Args:
        kl_weight: `kl_weight` times the KL divergence of all units is in the model's losses. With a loss that is the
            mean over a batch, the evidence lower bound wants 1 / N for N training examples. Where it is more than 0,
            `layer.kl_weight.assign(...)` changes it. 0: nothing is added.
        threshold: the signal-to-noise ratio that a living unit is above (the paper: 1).
        rule: "snr": a unit lives above that threshold. "evidence": it lives if the evidence of the model with it is
            more than e times the evidence without it, a rule with no threshold to choose
            (`truncated_log_normal.log_evidence_ratio`).
        log_sigma: where log sigma starts (the paper: -5); mu starts at 0.
        seed: of the noise, an int; None: a random one.
        scale: multiplies theta, a number > 0: 1 / E theta at the start leaves a trained network as it is.
    Raises:
        ValueError: there is no such rule.
    """

    def __init__(self, kl_weight=0.0, threshold=1.0, log_sigma=-5.0, seed=None, scale=1.0, rule="snr", **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if rule not in RULES:
            raise ValueError(f"rule={rule!r} is none of {', '.join(RULES)}")
        self.initial_kl_weight = kl_weight
        self.threshold = threshold
        self.rule = rule
        self.initial_log_sigma = log_sigma
        self.seed = seed
        self.scale = scale
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.drawn = None
        self._last = None

    def build(self, input_shape):
        # Of eight bits of mantissa log sigma could not move.
        dtype = "float64" if self.variable_dtype == "float64" else "float32"

        def parameter(name, start, **settings):
            initializer = keras.initializers.Constant(start)
            return self.add_weight(name=name, initializer=initializer, dtype=dtype, autocast=False, **settings)

        if self.initial_kl_weight:
            self.kl_weight = parameter("kl_weight", self.initial_kl_weight, shape=(), trainable=False)
        # A regulariser counts once, however often the layer is called.
        regularizer = self._weighted_kl if self.initial_kl_weight else None
        units = {"shape": input_shape[-1:], "constraint": _clip}
        self.mu = parameter("mu", 0.0, regularizer=regularizer, **units)
        self.log_sigma = parameter("log_sigma", self.initial_log_sigma, **units)

    def _weighted_kl(self, mu):
        return self.kl_weight.value * tf.reduce_sum(self.kl_divergence())

    def call(self, inputs, training=False):
        theta = self.scale * self.sample() if training else self.multiplier()
        return inputs * tf.cast(theta, inputs.dtype)

    def sample(self):
        """One theta a unit: (units,). The same for all calls while one graph, on one tower, is made."""
        if self.drawn is not None:
            return self.drawn
        if tf.executing_eagerly():
            return _samples([self])[0]
        # Every tower traces its part of the graph in a thread of its own.
        place = tf.compat.v1.get_default_graph(), threading.get_ident()
        if self._last is None or self._last[0] != place:
            self._last = place, _samples([self])[0]
        return self._last[1]

    def multiplier(self):
        """What a unit is multiplied by at test time: (units,), E theta for the living and exactly 0 for the others."""
        theta = self.scale * truncated_log_normal.mean(self.mu.value, self.log_sigma.value)
        return tf.where(self.alive(), theta, tf.zeros_like(theta))

    def alive(self):
        """Which units the rule keeps: (units,) bool."""
        if self.rule == "evidence":
            return truncated_log_normal.log_evidence_ratio(self.mu.value, self.log_sigma.value) < -WORTH
        return self.snr() > self.threshold

    def snr(self):
        """The signal-to-noise ratio of each unit's theta: (units,)."""
        return truncated_log_normal.snr(self.mu.value, self.log_sigma.value)

    def kl_divergence(self):
        """KL(q || p) of each unit's theta, in nats: (units,)."""
        return truncated_log_normal.kl_divergence(self.mu.value, self.log_sigma.value)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"kl_weight": self.initial_kl_weight, "threshold": self.threshold, "log_sigma": self.initial_log_sigma}
        return {**super().get_config(), **own, "seed": self.seed, "scale": self.scale, "rule": self.rule}
