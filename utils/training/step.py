"""A step of training: the paper's algorithm (its section 3), whole epochs of it inside the graph, on every tower."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.training.batches import Batches
from keras_sbp.utils.training.convolution import use_matmul_kernel_gradients
from keras_sbp.utils.training.noise import Noise
from keras_sbp.utils.training.objective import Objective
from keras_sbp.utils.training.updates import Updates

# What a step returns, and the summaries show averaged over an epoch: cross entropy per image, error rate, the scaled KL
# divergence of the units that are left, and weight decay; all in nats except the error rate.
METRICS = ("loss", "error", "kl", "decay")


class Step:
    """One network in training: the graph that runs its steps, and the state that they change.

    Args:
        model: images to logits.
        batches: the mini-batches.
        objective: the loss.
        updates: the optimizers.
        epochs: of the whole training, to which the schedules of learning rates and KL divergence refer.
        strategy: its towers share a step.
    Attributes:
        steps_per_epoch: the number of steps in an epoch.
        num_steps: the number of steps in the training.
        run: called with an epoch, its first step and the step after the last (int32 each), runs these steps, up to the
            first whose loss is not finite. Returns the sums of METRICS over them, (4,) float32, and the last step that
            ran.
    Raises:
        UserError: there are too many steps to count, or every learning rate is 0.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        batches: Batches,
        objective: Objective,
        updates: Updates,
        epochs: int,
        strategy: tf.distribute.Strategy,
    ):
        self.model, self.batches, self.objective, self.updates = model, batches, objective, updates
        self.strategy, self.steps_per_epoch = strategy, batches.steps_per_epoch
        self.num_steps = epochs * self.steps_per_epoch
        if self.num_steps > 2**31:
            raise UserError(f"--epochs={epochs} means {self.num_steps} steps, more than 2^31: use a smaller value")
        with strategy.scope():
            self.optimizers = updates.optimizers(model, self.num_steps)
        use_matmul_kernel_gradients(model)
        self.noise = Noise(model, batches.batch_size)
        self.statistics = _moving_statistics(model)
        self.run = tf.function(self._run, input_signature=[tf.TensorSpec((), tf.int32)] * 3)

    def _run(self, epoch, first, last):
        order, sums = self.batches.order(epoch), tf.zeros(len(METRICS))
        sizes = [len(METRICS), *(variable.shape[0] for variable in self.statistics)]
        for step in tf.range(first, last):
            values = self.strategy.run(self._tower_step, (*self.batches.copies, order, epoch, step))
            metrics, *statistics = tf.split(self.strategy.reduce("MEAN", values, axis=None), sizes)
            for variable, value in zip(self.statistics, statistics):
                variable.value.assign(value)
            sums += metrics
            if not tf.math.is_finite(tf.reduce_sum(metrics)):
                break
        return sums, step

    @tf.autograph.experimental.do_not_convert  # no control flow depends on tensors, and conversion takes a second
    def _tower_step(self, images, labels, order, epoch, step):
        """The step of one tower: METRICS and the new statistics of batch normalization, as one vector."""
        batch = self.batches.tower_batch(images, labels, order, epoch, step, self.noise.num_seeds)
        inputs, labels, seeds = batch
        num_examples = self.batches.num_examples
        teachers = self.objective.teachers_logits(inputs)
        progress = tf.cast(epoch * self.steps_per_epoch + step, tf.float32) / self.num_steps
        with tf.GradientTape() as tape:
            # Before theta is multiplied into some of the kernels.
            decay = self.objective.decay(self.model, num_examples, progress)
            with self.noise.sampled(seeds) as scope:
                logits = tf.cast(self.model(inputs, training=True), tf.float32)
            data_term = self.objective.data_term(logits, labels, teachers)
            kl = self.objective.kl_divergence(self.model, progress)
            # The optimizers sum the gradients of the towers.
            loss = (num_examples * data_term + kl + decay) / self.batches.num_towers
        trained = [variable.value for _, variables in self.optimizers for variable in variables]
        self._update(tape.gradient(loss, trained))
        error = tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) != labels, tf.float32))
        # The scope ends here, and with it the statistics that batch normalization assigned in it.
        statistics = [scope.get_current_value(variable) for variable in self.statistics]
        return tf.concat([tf.stack([data_term, error, kl, decay]), *statistics], 0)

    def _update(self, gradients):
        # Read before the optimizer is applied: after that, it is the rate of the next step, 0 after the last one.
        learning_rate = tf.identity(self.optimizers[0][0].learning_rate)
        for optimizer, variables in self.optimizers:
            optimizer.apply(gradients[: len(variables)], variables)
            gradients = gradients[len(variables) :]
        if self.updates.proximal:
            self.updates.proximal(self.model, learning_rate)

    def state(self) -> dict[str, np.ndarray]:
        """{name: array} of everything that the steps change: weights, statistics and the optimizers' variables."""
        variables = {f"model/{v.path}": v for v in weights(self.model)}
        for optimizer, _ in self.optimizers:
            variables |= {f"optimizer/{v.path}": v for v in optimizer.variables}
        return {name: np.asarray(v) for name, v in variables.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the variables to what `state` returned.

        Raises:
            ValueError: the arrays are of another network; no variable has been set.
        """
        for name, current in self.state().items():
            if name not in arrays or (arrays[name].shape, arrays[name].dtype) != (current.shape, current.dtype):
                raise ValueError(f"it has no {name} of shape {current.shape}")
        for v in weights(self.model):
            v.assign(arrays[f"model/{v.path}"])
        for optimizer, _ in self.optimizers:
            for v in optimizer.variables:
                v.assign(arrays[f"optimizer/{v.path}"])


def weights(model: keras.Model) -> list[keras.Variable]:
    """All variables except the states of seed generators: each step brings its own seeds."""
    return [v for v in model.variables if v.name != "seed_generator_state"]


def _moving_statistics(model):
    """The moving means and variances of the batch normalization layers that are not frozen."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
