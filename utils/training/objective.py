"""What a step minimizes: the negative evidence lower bound (section 3 of the paper), plus weight decay."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Objective:
    """N * mean(cross entropy) + KL(q || p) + decay, in nats, for N training images.

    Args:
        kl: the KL divergence term of the bound, in nats, a float32 scalar; called with the model and `progress`, the
            fraction of the training that is done, a float32 scalar in [0, 1). None: the method has no such term.
        weight_decay: L2 decay of the kernels: half of it times the sum of their squares, per image.
        label_smoothing: the fraction of a label that is spread evenly over all classes.
        growing_decay: the decay grows linearly from a thousandth of `weight_decay` at the start to all of it at the
            end, as in the authors' script for VGG-like.
    """

    kl: Callable[[keras.Model, tf.Tensor], tf.Tensor] | None = None
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    growing_decay: bool = False

    def data_term(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The mean cross entropy, in nats, a scalar, of logits (batch, classes) and labels (batch,)."""
        classes = logits.shape[-1]
        targets = (1 - self.label_smoothing) * tf.one_hot(labels, classes) + self.label_smoothing / classes
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))

    def kl_divergence(self, model: keras.Model, progress: tf.Tensor) -> tf.Tensor:
        """The KL divergence term, in nats, a scalar."""
        return self.kl(model, progress) if self.kl else tf.constant(0.0)

    def decay(self, model: keras.Model, num_examples: int, progress: tf.Tensor) -> tf.Tensor:
        """The weight decay summed over `num_examples` images, in nats, a scalar."""
        if not self.weight_decay:
            return tf.constant(0.0)
        kernels = [layer.kernel.value for layer in model.layers if hasattr(layer, "kernel")]
        growth = 1e-3 + (1 - 1e-3) * progress if self.growing_decay else 1.0
        return growth * num_examples * self.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
