"""Sparse variational dropout: Dense and Conv2D with Gaussian noise on every weight, after which most weights go.

D. Molchanov, A. Ashukha, D. Vetrov: "Variational Dropout Sparsifies Deep Neural Networks", ICML 2017. A weight is drawn
from N(theta, sigma^2) under a log-uniform prior, alpha = sigma^2 / theta^2; if its log alpha ends above 3 it goes.
"""

import keras
import numpy as np
import tensorflow as tf

# What log alpha is clipped to: beyond, the KL divergence is all but flat above and a straight line below.
BOX = (-8.0, 8.0)

# Keeps the derivatives of log theta^2 and of a standard deviation finite at 0.
EPSILON = 1e-8


def kl_divergence(log_alpha):
    """KL(q || p) of a weight, in nats: the approximation of Molchanov et al., equation 14, off by less than 0.01.

    Args:
        log_alpha: tensor, float32 or float64.
    Returns:
        A tensor of that shape and dtype.
    """
    k1, k2, k3 = 0.63576, 1.87320, 1.48695
    return k1 * tf.sigmoid(-(k2 + k3 * log_alpha)) + tf.math.softplus(-log_alpha) / 2


def normal(shape, seed):
    """Standard normal numbers, float32, by the method of Box and Muller (1958): TensorFlow's take twice as long.

    Two of them come from the same 32 random bits, which take half of the time: 20 for their radius and 12 for their
    angle. None is above 5.4.

    Args:
        shape: a list of sizes, the last one an int.
        seed: (2,) int; the same seed gives the same numbers.
    Returns:
        A tensor of that shape, float32.
    """
    halves = [*shape[:-1], -(-shape[-1] // 2)]
    bits = tf.random.stateless_uniform(halves, tf.cast(seed, tf.int32), None, None, tf.int32)
    # In the middle of its step: of a number in (0, 1).
    uniform = (tf.cast(tf.bitwise.bitwise_and(bits, 2**20 - 1), tf.float32) + 0.5) * 2.0**-20
    radius = tf.sqrt(-2 * tf.math.log(uniform))
    angle = tf.cast(tf.bitwise.right_shift(bits, 20), tf.float32) * (np.pi * 2.0**-11)
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], -1)
    return both if both.shape[-1] == shape[-1] else both[..., : shape[-1]]


class _SparseVD:
    """What Dense and Conv2D have in common.

    In training an output is drawn from the Gaussian that the noise of its weights adds up to (local
    reparameterisation), anew for each example and position. At test time a weight is theta, or 0 if its log alpha is
    above `threshold`.

    Weights: kernel (theta) and log_sigma2 of its shape; bias, without noise.

    Args:
        threshold: the log alpha above which a weight is removed (Molchanov et al.: 3).
        log_sigma2: where log sigma^2 starts.
        seed: of the noise, an int; None: a random one.
    """

    def __init__(self, *args, threshold=3.0, log_sigma2=-10.0, seed=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.threshold = threshold
        self.initial_log_sigma2 = log_sigma2
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        super().build(input_shape)
        start = keras.initializers.Constant(self.initial_log_sigma2)
        self.log_sigma2 = self.add_weight(name="log_sigma2", shape=self.kernel.shape, initializer=start, autocast=False)

    def call(self, inputs, training=False):
        if training:
            x = self.product(inputs, keras.ops.cast(self.kernel, inputs.dtype))
            # The epsilon is in the inputs, of which there are fewer than outputs.
            variance = self.product(inputs**2 + EPSILON, tf.cast(tf.exp(self.log_sigma2.value), inputs.dtype))
            noise = normal([*tf.unstack(tf.shape(x)[:-1]), x.shape[-1]], self.seed_generator.next())
            x += tf.sqrt(variance) * tf.cast(noise, x.dtype)
        else:
            x = self.product(inputs, tf.cast(self.sparse_kernel(), inputs.dtype))
        if self.use_bias:
            x += keras.ops.cast(self.bias, x.dtype)
        return self.activation(x)

    def sparse_kernel(self):
        """The kernel at test time, a float32 tensor of its shape: 0 for the weights that are removed."""
        return tf.where(self.log_alpha() > self.threshold, 0.0, keras.ops.cast(self.kernel, tf.float32))

    def log_alpha(self):
        """log alpha of each weight, clipped to BOX: a float32 tensor of the kernel's shape."""
        square = keras.ops.cast(self.kernel, tf.float32) ** 2
        return tf.clip_by_value(self.log_sigma2.value - tf.math.log(square + EPSILON), *BOX)

    def kl_divergence(self):
        """KL(q || p) of each weight, in nats: a float32 tensor of the kernel's shape."""
        return kl_divergence(self.log_alpha())

    # Those of Dense and Conv2D write the kernel and the bias only.
    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        own = {"threshold": self.threshold, "log_sigma2": self.initial_log_sigma2, "seed": self.seed}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="sparse_vd")
class Dense(_SparseVD, keras.layers.Dense):
    """keras.layers.Dense with the noise, and the further arguments, of `_SparseVD`."""

    def product(self, inputs, kernel):
        return keras.ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(package="sparse_vd")
class Conv2D(_SparseVD, keras.layers.Conv2D):
    """keras.layers.Conv2D with the noise, and the further arguments, of `_SparseVD`."""

    def product(self, inputs, kernel):
        return self.convolution_op(inputs, kernel)


def layers(model):
    """The layers of a model that are of this method."""
    return [layer for layer in model.layers if isinstance(layer, _SparseVD)]


def kl(warm_up):
    """The KL divergence of all weights for `training.Objective`: from 0, on a line over the first part of the training.

    Args:
        warm_up: how long that is, a share of the training; with more than 1 it ends at 1 / warm_up.
    Returns:
        From the model and the share that is done to a scalar tensor, in nats.
    """

    def warmed_up(model, done):
        scale = tf.minimum(done / warm_up, 1.0) if warm_up else 1.0
        return scale * tf.add_n([tf.reduce_sum(layer.kl_divergence()) for layer in layers(model)])

    return warmed_up


def alive(model):
    """{layer's name: (units,) bool, whether a weight that is not removed leads to the unit}."""
    kernels = {layer.name: np.asarray(layer.sparse_kernel()) for layer in layers(model)}
    return {name: kernel.any(axis=tuple(range(kernel.ndim - 1))) for name, kernel in kernels.items()}


def zero_share(model):
    """The share of a model's weights that are removed, over all kernels of the method: a float in [0, 1]."""
    kernels = [np.asarray(layer.sparse_kernel()) for layer in layers(model)]
    return 1 - sum(np.count_nonzero(kernel) for kernel in kernels) / sum(kernel.size for kernel in kernels)
