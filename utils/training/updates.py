"""What a gradient does to the weights: optimisers, and the course of their rates."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError


class Course(keras.optimizers.schedules.LearningRateSchedule):
    """On a line up to `rate` at step `warm`, `rate` until step `start`, then on a line to 0 at step `end`."""

    def __init__(self, rate, start, end, warm=0):
        self.rate, self.start, self.end, self.warm = rate, start, end, warm

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        share = tf.minimum((step + 1) / (self.warm + 1), (self.end - step) / (self.end - self.start))
        return self.rate * tf.clip_by_value(share, 0.0, 1.0)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with the update of a variable as one operation: Keras's dozen pass over memory a dozen times."""

    def update_step(self, gradient, variable, learning_rate):
        place, step = self._get_variable_index(variable), tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(course, group):
    """The paper's optimiser, of a course of the learning rate and the number of the variables' group."""
    return FusedAdam(course, beta_1=0.95, name=f"adam_{group}")


class FusedNesterov(keras.optimizers.SGD):
    """Keras's SGD with Nesterov's momentum, likewise."""

    def __init__(self, learning_rate, momentum, **settings):
        super().__init__(learning_rate, momentum, nesterov=True, **settings)

    def update_step(self, gradient, variable, learning_rate):
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, tf.float32),
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=True,
        )


def nesterov(course, group):
    """Nesterov's momentum: fewer image passes than Adam where the rate may be high."""
    return FusedNesterov(course, momentum=0.9, name=f"sgd_{group}")


class Muon(FusedNesterov):
    """Muon for the kernels of convolutions before batch normalisation, and Nesterov's momentum for everything else.

    Such a kernel's norm does nothing, so it is kept: at 1 a unit, in the root mean square. What moves it is its mean
    gradient, with all singular values near 1, as a matrix (places and inputs, units): Jordan et al., Muon, 2024, in the
    form of their CIFAR-10 speed records. The rate is then a relative one, whatever the loss is multiplied by. What
    weight decay adds to the gradient lies along the kernel and is left out.

    Args:
        learning_rate: of either kind of variable.
        momentum: of Nesterov's.
    """

    KERNEL_MOMENTUM = 0.6
    STEPS = 3  # of Keras's Newton-Schulz iteration, in the policy's compute dtype

    def __init__(self, learning_rate, momentum, **settings):
        super().__init__(learning_rate, momentum, **settings)
        self.orthogonal = keras.optimizers.Muon().zeropower_via_newtonschulz5

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) != 4:
            return super().update_step(gradient, variable, learning_rate)
        accumulated, units = self.momentums[self._get_variable_index(variable)], variable.shape[-1]
        kernel = variable * (units**0.5 / tf.norm(variable))
        gradient -= kernel * tf.reduce_sum(gradient * kernel) / units
        self.assign(accumulated, self.KERNEL_MOMENTUM * accumulated + gradient)
        moved = self.KERNEL_MOMENTUM * accumulated + gradient
        matrix = tf.reshape(tf.math.divide_no_nan(moved, tf.norm(moved)), (-1, units))
        matrix = self.orthogonal(tf.cast(matrix, keras.config.dtype_policy().compute_dtype), self.STEPS)
        self.assign(variable, kernel - learning_rate * tf.reshape(tf.cast(matrix, tf.float32), variable.shape))


def muon(course, group):
    """Muon, likewise: fewer passes still."""
    return Muon(course, momentum=0.9, name=f"muon_{group}")


@dataclasses.dataclass(frozen=True)
class Updates:
    """How a step changes the weights.

    Args:
        rate: from a trainable variable to its learning rate; 0 keeps it as it is.
        course: two shares of the training: until the first, learning rates rise from 0; from the second on, they fall
            to 0.
        optimizer: makes a Keras optimiser, as `adam` does.
        proximal: called with the model and the learning rate of the weights after each of the optimiser's updates, to
            change weights for what no gradient can do. None: nothing to do.
    """

    rate: Callable
    course: tuple[float, float] = (0.0, 0.5)
    optimizer: Callable = adam
    proximal: Callable | None = None

    def optimizers(self, model, total):
        """[(optimiser, its variables)] for a training of so many steps, one for each learning rate.

        Raises:
            UserError: every rate is 0.
        """
        rates = {variable.path: self.rate(variable) for variable in model.trainable_variables}
        if not any(rates.values()):
            raise UserError("every learning rate is 0, so nothing is trained: give one that is more")
        made = []
        for rate in sorted(set(rates.values()) - {0.0}):
            variables = [variable for variable in model.trainable_variables if rates[variable.path] == rate]
            warm, start = (int(share * total) for share in self.course)
            optimizer = self.optimizer(Course(rate, start, total, warm), len(made))
            optimizer.build(variables)
            made.append((optimizer, variables))
        return made
