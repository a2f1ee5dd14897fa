"""What a step minimises: minus the evidence lower bound of the paper's section 3, and weight decay beside it."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Objective:
    """N * mean(cross entropy) + KL(q || p) + decay, in nats; N: the training images.

    Args:
        kl: from the model and the share of the training that is done, in [0, 1), to the KL divergence that the bound
            takes off, in nats: a scalar tensor. None: the method has none.
        weight_decay: L2 decay of the kernels: half of it times their squares, an image.
        label_smoothing: the share of a label that is spread over all classes.
        growing_decay: the decay grows to that on a line, from a thousandth of it, as in the authors' script for
            VGG-like.
    """

    kl: Callable | None = None
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    growing_decay: bool = False

    def data_term(self, logits, labels):
        """The mean cross entropy of an image: a scalar tensor, from logits (batch, classes) and labels (batch,)."""
        classes = logits.shape[-1]
        targets = (1 - self.label_smoothing) * tf.one_hot(labels, classes) + self.label_smoothing / classes
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))

    def kl_divergence(self, model, done):
        """The scaled KL divergence: a scalar tensor in nats."""
        return self.kl(model, done) if self.kl else tf.constant(0.0)

    def decay(self, model, count, done):
        """The kernels' decay over `count` images, at a share of the training: a scalar tensor in nats."""
        if not self.weight_decay:
            return tf.constant(0.0)
        kernels = [layer.kernel.value for layer in model.layers if hasattr(layer, "kernel")]
        grown = 1e-3 + (1 - 1e-3) * done if self.growing_decay else 1.0
        return grown * count * self.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
