"""The layer of Structured Bayesian Pruning (Neklyudov et al., NIPS 2017): log-normal noise that multiplies a unit."""

import contextlib

import keras
import tensorflow as tf

from layers import truncated_log_normal

# What mu and log sigma are clipped to; the distribution is exact on all of it.
BOX = (-20.0, 5.0)


def _clip(parameter):
    return tf.clip_by_value(parameter, *BOX)


def _samples(layers):
    """One theta a unit of each layer, from one call of the quantile."""
    # The middle of one of 2^23 equal cells: an end of the interval is never drawn.
    u = [keras.random.uniform(layer.mu.shape, seed=layer.seed_generator, dtype="float32") for layer in layers]
    mu, log_sigma = (tf.concat([getattr(layer, name).value for layer in layers], 0) for name in ("mu", "log_sigma"))
    theta = tf.exp(truncated_log_normal.log_quantile(tf.concat(u, 0) + 2.0**-24, mu, log_sigma))
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

    In training theta is a sample, one a unit a call, shared by the examples and positions of the call; at test time it
    is E theta, or 0 for a unit whose signal-to-noise ratio is at most `threshold`: such a unit can be taken out.

    Inputs and outputs: (batch, ..., units), any rank from 2 up. mu and log_sigma: (units,), trained by whoever adds
    `kl_divergence()` to the loss. Under mixed precision the noise stays float32; only the product is rounded.

    Args:
        threshold: the signal-to-noise ratio that a living unit is above (the paper: 1).
        log_sigma: where log sigma starts (the paper: -5); mu starts at 0.
        seed: of the noise, an int; None: a random one.
    """

    def __init__(self, threshold=1.0, log_sigma=-5.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold
        self.initial_log_sigma = log_sigma
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.drawn = None

    def build(self, input_shape):
        def parameter(name, start):
            initializer = keras.initializers.Constant(start)
            return self.add_weight(
                name=name, shape=input_shape[-1:], initializer=initializer, constraint=_clip, autocast=False
            )

        self.mu = parameter("mu", 0.0)
        self.log_sigma = parameter("log_sigma", self.initial_log_sigma)

    def call(self, inputs, training=False):
        theta = self.sample() if training else self.multiplier()
        return inputs * tf.cast(theta, inputs.dtype)

    def sample(self):
        """One theta a unit: (units,)."""
        return _samples([self])[0] if self.drawn is None else self.drawn

    def multiplier(self):
        """What a unit is multiplied by at test time: (units,), E theta for the living and exactly 0 for the others."""
        theta = truncated_log_normal.mean(self.mu.value, self.log_sigma.value)
        return tf.where(self.snr() > self.threshold, theta, tf.zeros_like(theta))

    def snr(self):
        """The signal-to-noise ratio of each unit's theta: (units,)."""
        return truncated_log_normal.snr(self.mu.value, self.log_sigma.value)

    def kl_divergence(self):
        """KL(q || p) of each unit's theta, in nats: (units,)."""
        return truncated_log_normal.kl_divergence(self.mu.value, self.log_sigma.value)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"threshold": self.threshold, "log_sigma": self.initial_log_sigma, "seed": self.seed}
        return {**super().get_config(), **own}
