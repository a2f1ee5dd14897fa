"""What gradients do to the weights: optimizers, and the schedule of their learning rates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_sbp import keras_private
from keras_sbp.utils.io.command_line import UserError


class LinearWarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly, stays constant, and falls linearly to 0.

    Args:
        rate: the constant rate.
        decay_start: the step from which the rate falls.
        end: the step at which it reaches 0.
        warmup: the step at which it reaches `rate`; it starts at rate / (warmup + 1).
    """

    def __init__(self, rate: float, decay_start: int, end: int, warmup: int = 0):
        self.rate, self.decay_start, self.end, self.warmup = rate, decay_start, end, warmup

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        fraction = tf.minimum((step + 1) / (self.warmup + 1), (self.end - step) / (self.end - self.decay_start))
        return self.rate * tf.clip_by_value(fraction, 0.0, 1.0)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with a single operation per update: Keras's dozen operations pass over memory a dozen times."""

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        momentum, velocity = keras_private.adam_moments(self, variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class FusedNesterov(keras.optimizers.SGD):
    """Keras's SGD with Nesterov momentum, with a single operation per update."""

    def __init__(self, learning_rate: float | LinearWarmupDecay, momentum: float, **kwargs: Any):
        super().__init__(learning_rate, momentum, nesterov=True, **kwargs)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=keras_private.sgd_momentum(self, variable).value.handle,
            lr=tf.cast(learning_rate, tf.float32),
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=True,
        )


class Muon(FusedNesterov):
    """Muon for the kernels of convolutions before batch normalization, and Nesterov momentum for everything else.

    Batch normalization makes the network invariant to the norm of such a kernel, so it is kept: a root mean square
    norm of 1 per unit. The update is the mean gradient, as a matrix (positions and inputs, units), with all its
    singular values set to about 1: Jordan et al., Muon, 2024, in the form of their CIFAR-10 speed records. The learning
    rate is thus relative to the kernel, and independent of the scale of the loss. The component of the gradient along
    the kernel, which weight decay adds, is left out. Units whose weights are all 0 (`pad_filters`) do not count.

    Args:
        learning_rate: of both kinds of variables.
        momentum: Nesterov's.
        compute_dtype: of the Newton-Schulz iteration.
    """

    KERNEL_MOMENTUM = 0.6
    STEPS = 3  # of the Newton-Schulz iteration

    def __init__(
        self,
        learning_rate: float | LinearWarmupDecay,
        momentum: float,
        compute_dtype: str = "float32",
        **kwargs: Any,
    ):
        super().__init__(learning_rate, momentum, **kwargs)
        self.orthogonalize = keras.optimizers.Muon().zeropower_via_newtonschulz5
        self.compute_dtype = compute_dtype

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        if len(variable.shape) != 4:
            return super().update_step(gradient, variable, learning_rate)
        accumulated = keras_private.sgd_momentum(self, variable)
        units = tf.math.count_nonzero(tf.reduce_any(tf.convert_to_tensor(variable) != 0, (0, 1, 2)), dtype=tf.float32)
        kernel = variable * (tf.sqrt(units) / tf.norm(variable))
        gradient -= kernel * tf.reduce_sum(gradient * kernel) / units
        self.assign(accumulated, self.KERNEL_MOMENTUM * accumulated + gradient)
        update = self.KERNEL_MOMENTUM * accumulated + gradient
        matrix = tf.reshape(tf.math.divide_no_nan(update, tf.norm(update)), (-1, variable.shape[-1]))
        matrix = self.orthogonalize(tf.cast(matrix, self.compute_dtype), self.STEPS)
        self.assign(variable, kernel - learning_rate * tf.reshape(tf.cast(matrix, tf.float32), variable.shape))


def adam(schedule: LinearWarmupDecay, name: str) -> keras.optimizers.Optimizer:
    """The paper's optimizer: Adam with beta1 = 0.95. `name` follows "adam_" in the names of its variables."""
    return FusedAdam(schedule, beta_1=0.95, name=f"adam_{name}")


def nesterov(schedule: LinearWarmupDecay, name: str) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum, which takes fewer epochs than Adam where the learning rate can be high."""
    return FusedNesterov(schedule, momentum=0.9, name=f"sgd_{name}")


def muon(schedule: LinearWarmupDecay, name: str, compute_dtype: str = "float32") -> keras.optimizers.Optimizer:
    """Muon for kernels of convolutions, Nesterov momentum of 0.9 for the rest: even fewer epochs."""
    return Muon(schedule, momentum=0.9, compute_dtype=compute_dtype, name=f"muon_{name}")


@dataclasses.dataclass(frozen=True)
class Updates:
    """How a step changes the weights.

    Args:
        rate: the learning rate of a trainable variable. 0 keeps the variable as it is.
        warmup: the fraction of the training over which the learning rates rise from 0.
        decay_start: the fraction of the training after which they fall to 0.
        optimizer: returns the optimizer of the variables with one learning rate, given their schedule and a name that
            tells the optimizers of a step apart ("0", "1" ...): `adam`, `nesterov`, `muon` or `layers.ssl.sgd`.
        proximal: called with the model and the current learning rate after each step of the optimizers, to change
            weights in place. None: nothing is called.
    """

    rate: Callable[[keras.Variable], float]
    warmup: float = 0.0
    decay_start: float = 0.5
    optimizer: Callable[[LinearWarmupDecay, str], keras.optimizers.Optimizer] = adam
    proximal: Callable[[keras.Model, tf.Tensor], None] | None = None

    def optimizers(
        self, model: keras.Model, num_steps: int
    ) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
        """[(optimizer, its variables)], one for each positive learning rate, for a training of `num_steps`.

        Raises:
            UserError: all learning rates are 0.
        """
        rates = {variable.path: self.rate(variable) for variable in model.trainable_variables}
        if not any(rates.values()):
            raise UserError("every learning rate is 0, so nothing is trained: use a larger value")
        found = []
        warmup, decay_start = int(self.warmup * num_steps), int(self.decay_start * num_steps)
        for rate in sorted(set(rates.values()) - {0.0}):
            variables = [variable for variable in model.trainable_variables if rates[variable.path] == rate]
            optimizer = self.optimizer(LinearWarmupDecay(rate, decay_start, num_steps, warmup), str(len(found)))
            optimizer.build(variables)
            found.append((optimizer, variables))
        return found
