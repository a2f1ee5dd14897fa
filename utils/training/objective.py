"""What a step minimizes: the negative evidence lower bound (section 3 of the paper), plus weight decay."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

# The names of the weights that decay.
KERNELS = ("kernel", "recurrent_kernel")


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
        teacher: a trained network, images to logits, whose outputs are soft targets beside the labels (Hinton, Vinyals
            and Dean, Distilling the Knowledge in a Neural Network, 2015). None: there are none.
        soft_labels: the weight of the cross entropy with the soft targets; that with the labels has the rest of 1.
        temperature: divides the logits of both networks for that cross entropy, which is multiplied by its square.
    """

    kl: Callable[[keras.Model, tf.Tensor], tf.Tensor] | None = None
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    growing_decay: bool = False
    teacher: keras.Model | None = None
    soft_labels: float = 0.0
    temperature: float = 1.0

    def teachers_logits(self, inputs: tf.Tensor) -> tf.Tensor | None:
        """What the teacher says of the network's inputs, (batch, classes) float32; None without a teacher."""
        return tf.cast(self.teacher(inputs, training=False), tf.float32) if self.teacher else None

    def data_term(self, logits: tf.Tensor, labels: tf.Tensor, teachers: tf.Tensor | None = None) -> tf.Tensor:
        """The mean cross entropy, in nats, a scalar; with a teacher, also with its soft targets.

        Args:
            logits: of the model, (batch, classes).
            labels: (batch,) integers.
            teachers: `teachers_logits`.
        """
        classes = logits.shape[-1]
        targets = (1 - self.label_smoothing) * tf.one_hot(labels, classes) + self.label_smoothing / classes
        cross_entropy = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        if teachers is None:
            return cross_entropy
        # Not keras.distillation.LogitsDistillation: in Keras 3.15 its default compares logits, not probabilities.
        soft_targets = tf.nn.softmax(teachers / self.temperature)
        soft = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(soft_targets, logits / self.temperature))
        return (1 - self.soft_labels) * cross_entropy + self.soft_labels * self.temperature**2 * soft

    def kl_divergence(self, model: keras.Model, progress: tf.Tensor) -> tf.Tensor:
        """The KL divergence term, in nats, a scalar."""
        return self.kl(model, progress) if self.kl else tf.constant(0.0)

    def decay(self, model: keras.Model, num_examples: int, progress: tf.Tensor) -> tf.Tensor:
        """The weight decay summed over `num_examples` images, in nats, a scalar."""
        if not self.weight_decay:
            return tf.constant(0.0)
        kernels = [weight.value for weight in model.weights if weight.name in KERNELS]
        growth = 1e-3 + (1 - 1e-3) * progress if self.growing_decay else 1.0
        return growth * num_examples * self.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
