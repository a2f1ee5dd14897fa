"""Sparse variational dropout (SparseVD): Dense and Conv2D with Gaussian noise on every weight.

D. Molchanov, A. Ashukha, D. Vetrov: "Variational Dropout Sparsifies Deep Neural Networks", ICML 2017. The approximate
posterior of a weight is N(theta, sigma^2) and its prior log-uniform. Training drives alpha = sigma^2 / theta^2 of most
weights up; those whose log alpha ends above 3 are removed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# log alpha is clipped to this interval: beyond it the KL divergence is nearly constant above and linear below.
LOG_ALPHA_BOUNDS = (-8.0, 8.0)

# Keeps the derivatives of log theta^2 and of a standard deviation finite at 0.
EPSILON = 1e-8


def kl_divergence(log_alpha: tf.Tensor) -> tf.Tensor:
    """KL(q || p) of each weight, in nats: the approximation of Molchanov et al., equation 14, within 0.01.

    Args:
        log_alpha: float32 or float64, of any shape, which the result has, too.
    """
    k1, k2, k3 = 0.63576, 1.87320, 1.48695
    return k1 * tf.sigmoid(-(k2 + k3 * log_alpha)) + tf.math.softplus(-log_alpha) / 2


def normal(shape: Sequence[int | tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal samples, float32, by the Box-Muller transform (1958): twice as fast as TensorFlow's.

    Each pair of samples takes 32 random bits, whose generation is half of the cost: 20 for the radius and 12 for the
    angle. No absolute value exceeds 5.4.

    Args:
        shape: sizes, the last one an int.
        seed: (2,) int; equal seeds give equal samples.
    """
    halves = [*shape[:-1], -(-shape[-1] // 2)]
    bits = tf.random.stateless_uniform(halves, tf.cast(seed, tf.int32), None, None, tf.int32)
    # Centers of 2^20 equal cells of (0, 1).
    uniform = (tf.cast(tf.bitwise.bitwise_and(bits, 2**20 - 1), tf.float32) + 0.5) * 2.0**-20
    radius = tf.sqrt(-2 * tf.math.log(uniform))
    angle = tf.cast(tf.bitwise.right_shift(bits, 20), tf.float32) * (np.pi * 2.0**-11)
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], -1)
    return both if both.shape[-1] == shape[-1] else both[..., : shape[-1]]


class _SparseVD:
    """What Dense and Conv2D share.

    In training, an output is sampled from the Gaussian that the noise of its weights implies, independently for each
    example and position (local reparameterization: Kingma, Salimans, Welling, 2015). At test time a weight is theta, or
    0 if its log alpha exceeds `threshold`.

    Weights: kernel (theta), log_sigma2 of the same shape, and bias, without noise.

    Args:
        threshold: the log alpha above which a weight is removed (3 in the paper).
        log_sigma2: initial value of log sigma^2.
        seed: of the noise. None: a random one.
    """

    def __init__(
        self,
        *args: Any,
        threshold: float = 3.0,
        log_sigma2: float = -10.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.threshold = threshold
        self.initial_log_sigma2 = log_sigma2
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        start = keras.initializers.Constant(self.initial_log_sigma2)
        self.log_sigma2 = self.add_weight(name="log_sigma2", shape=self.kernel.shape, initializer=start, autocast=False)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            x = self.product(inputs, keras.ops.cast(self.kernel, inputs.dtype))
            # The epsilon is added to the inputs, which are fewer than the outputs.
            variance = self.product(inputs**2 + EPSILON, tf.cast(tf.exp(self.log_sigma2.value), inputs.dtype))
            noise = normal([*tf.unstack(tf.shape(x)[:-1]), x.shape[-1]], self.seed_generator.next())
            x += tf.sqrt(variance) * tf.cast(noise, x.dtype)
        else:
            x = self.product(inputs, tf.cast(self.sparse_kernel(), inputs.dtype))
        if self.use_bias:
            x += keras.ops.cast(self.bias, x.dtype)
        return self.activation(x)

    def sparse_kernel(self) -> tf.Tensor:
        """The kernel at test time, float32, of the kernel's shape: 0 for weights that are removed."""
        return tf.where(self.log_alpha() > self.threshold, 0.0, keras.ops.cast(self.kernel, tf.float32))

    def log_alpha(self) -> tf.Tensor:
        """log alpha of each weight, clipped to LOG_ALPHA_BOUNDS: float32, of the kernel's shape."""
        square = keras.ops.cast(self.kernel, tf.float32) ** 2
        return tf.clip_by_value(self.log_sigma2.value - tf.math.log(square + EPSILON), *LOG_ALPHA_BOUNDS)

    def kl_divergence(self) -> tf.Tensor:
        """KL(q || p) of each weight, in nats: float32, of the kernel's shape."""
        return kl_divergence(self.log_alpha())

    # Dense and Conv2D save the kernel and the bias only.
    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        own = {"threshold": self.threshold, "log_sigma2": self.initial_log_sigma2, "seed": self.seed}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="sparse_vd")
class Dense(_SparseVD, keras.layers.Dense):
    """keras.layers.Dense with noise on its weights.

    Args: those of keras.layers.Dense, and
        threshold: the log alpha above which a weight is removed.
        log_sigma2: initial value of log sigma^2.
        seed: of the noise. None: a random one.
    """

    def product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return keras.ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(package="sparse_vd")
class Conv2D(_SparseVD, keras.layers.Conv2D):
    """keras.layers.Conv2D with noise on its weights.

    Args: those of keras.layers.Conv2D, and `threshold`, `log_sigma2`, `seed` as for `Dense`.
    """

    def product(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self.convolution_op(inputs, kernel)


def layers(model: keras.Model) -> list[Dense | Conv2D]:
    """The layers of a model that have noise on their weights."""
    return [layer for layer in model.layers if isinstance(layer, _SparseVD)]


def kl(warm_up: float) -> Callable[[keras.Model, tf.Tensor], tf.Tensor]:
    """The KL divergence of all weights, as `training.Objective` takes it, with a weight that grows linearly from 0.

    Args:
        warm_up: the fraction of the training after which the weight reaches 1. Above 1, it ends at 1 / warm_up.
    """

    def warmed_up_kl(model, progress):
        weight = tf.minimum(progress / warm_up, 1.0) if warm_up else 1.0
        return weight * tf.add_n([tf.reduce_sum(layer.kl_divergence()) for layer in layers(model)])

    return warmed_up_kl


def live_units(model: keras.Model) -> dict[str, np.ndarray]:
    """{layer's name: (units,) bool}: units that at least one of the remaining weights leads to."""
    kernels = {layer.name: np.asarray(layer.sparse_kernel()) for layer in layers(model)}
    return {name: kernel.any(axis=tuple(range(kernel.ndim - 1))) for name, kernel in kernels.items()}
