"""A step of training: the paper's algorithm (its section 3.4), whole epochs of it inside the graph, on every tower."""

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.training import convolution
from keras_sbp.utils.training.noise import Noise

# What a step returns, and a summary shows of an epoch's mean: cross entropy of an image, share of wrong answers, KL
# divergence as the loss has it, that is scaled and without the units that were taken out, and decay, in nats.
FIGURES = ("loss", "error", "kl", "decay")


class Step:
    """One network in training: the graph that runs its steps, and the state that they change.

    Args:
        model: a Keras model of images in, logits out.
        batches: `Batches`.
        objective: `Objective`.
        updates: `Updates`.
        epochs: of the whole training, which the courses of rates and KL divergence are shares of.
        strategy: of tf.distribute; its towers share a step.
    Attributes:
        steps, total: how many an epoch and the training have.
        run: from an epoch, its first step and the step after the last (int32 each), takes these steps, up to the first
            whose loss is not finite; returns the sums of FIGURES over them, (4,) float32, and the step it came to.
    Raises:
        UserError: the steps are too many to count, or every rate is 0.
    """

    def __init__(self, model, *, batches, objective, updates, epochs, strategy):
        self.model, self.batches, self.objective, self.updates = model, batches, objective, updates
        self.strategy, self.steps, self.total = strategy, batches.steps, epochs * batches.steps
        if self.total > 2**31:
            raise UserError(f"--epochs={epochs} are {self.total} steps, and 2^31 can be counted: make it less")
        with strategy.scope():
            self.optimizers = updates.optimizers(model, self.total)
        convolution.by_products(model)
        self.noise = Noise(model, batches.batch_size)
        self.statistics = _statistics(model)
        self.run = tf.function(self._run, input_signature=[tf.TensorSpec((), tf.int32)] * 3)

    def _run(self, epoch, first, last):
        order, sums = self.batches.order(epoch), tf.zeros(len(FIGURES))
        sizes = [len(FIGURES), *(variable.shape[0] for variable in self.statistics)]
        for step in tf.range(first, last):
            values = self.strategy.run(self._tower_step, (*self.batches.copies, order, epoch, step))
            figures, *statistics = tf.split(self.strategy.reduce("MEAN", values, axis=None), sizes)
            for variable, value in zip(self.statistics, statistics):
                variable.value.assign(value)
            sums += figures
            if not tf.math.is_finite(tf.reduce_sum(figures)):
                break
        return sums, step

    @tf.autograph.experimental.do_not_convert  # nothing in it depends on values, and converting it takes a second
    def _tower_step(self, images, labels, order, epoch, step):
        """One tower's share of a step: FIGURES, and what batch normalisation's statistics become, a vector."""
        inputs, labels, seeds = self.batches.take(images, labels, order, epoch, step, self.noise.sources)
        count, done = self.batches.count, tf.cast(epoch * self.steps + step, tf.float32) / self.total
        with tf.GradientTape() as tape:
            # Before theta goes into some of the kernels.
            decay = self.objective.decay(self.model, count, done)
            with self.noise.drawn(seeds) as scope:
                logits = tf.cast(self.model(inputs, training=True), tf.float32)
            data_term = self.objective.data_term(logits, labels)
            kl = self.objective.kl_divergence(self.model, done)
            # The optimisers add up the towers' gradients.
            loss = (count * data_term + kl + decay) / self.batches.towers
        trained = [variable.value for _, variables in self.optimizers for variable in variables]
        self._update(tape.gradient(loss, trained))
        error = tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) != labels, tf.float32))
        # What batch normalisation has seen would be lost with the scope.
        statistics = [scope.get_current_value(variable) for variable in self.statistics]
        return tf.concat([tf.stack([data_term, error, kl, decay]), *statistics], 0)

    def _update(self, gradients):
        # Of this step: the optimiser's own is the next one's, 0 after the last, once it has been applied.
        learning_rate = tf.identity(self.optimizers[0][0].learning_rate)
        for optimizer, variables in self.optimizers:
            optimizer.apply(gradients[: len(variables)], variables)
            gradients = gradients[len(variables) :]
        if self.updates.proximal:
            self.updates.proximal(self.model, learning_rate)

    def state(self):
        """{name: array} of all that the steps change."""
        variables = {f"model/{v.path}": v for v in weights(self.model)}
        for optimizer, _ in self.optimizers:
            variables |= {f"optimizer/{v.path}": v for v in optimizer.variables}
        return {name: np.asarray(v) for name, v in variables.items()}

    def restore(self, arrays):
        """Set what `state` gave. Raises ValueError if the arrays are of another network, before any is set."""
        for name, held in self.state().items():
            if name not in arrays or (arrays[name].shape, arrays[name].dtype) != (held.shape, held.dtype):
                raise ValueError(f"it has no {name} of {held.shape}")
        for v in weights(self.model):
            v.assign(arrays[f"model/{v.path}"])
        for optimizer, _ in self.optimizers:
            for v in optimizer.variables:
                v.assign(arrays[f"optimizer/{v.path}"])


def weights(model):
    """All variables but the seeds: each step brings its own."""
    seeds = {id(layer.seed_generator.state) for layer in model.layers if hasattr(layer, "seed_generator")}
    return [v for v in model.variables if id(v) not in seeds]


def _statistics(model):
    """The moving means and variances of the layers of batch normalisation that are not frozen."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
