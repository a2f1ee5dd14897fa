"""Which images a tower sees at which step, and the seeds of everything random there."""

from collections.abc import Callable

import tensorflow as tf

from keras_sbp.utils.io import data, towers
from keras_sbp.utils.io.command_line import UserError


class Batches:
    """The mini-batches of a run: a function of (seed, epoch, step, tower), so that a restart needs no other state.

    Args:
        train_set: the images and labels; every tower holds a copy.
        preprocess: called in the graph with uint8 images (batch, ...) and a seed (2,) int32; returns the network's
            inputs.
        batch_size: images per tower and step.
        seed: of order, noise and augmentation.
        strategy: its towers share a step.
    Attributes:
        num_examples: the number of training images.
        num_towers: the number of towers.
        steps_per_epoch: the number of steps in an epoch; the remainder of the images is dropped.
        copies: images and labels, a tensor on each tower, for `strategy.run`.
    Raises:
        UserError: a step needs more images than there are.
    """

    def __init__(
        self,
        train_set: data.Images,
        preprocess: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        batch_size: int,
        seed: int,
        strategy: tf.distribute.Strategy,
    ):
        self.preprocess, self.batch_size, self.seed = preprocess, batch_size, seed
        self.num_examples, self.num_towers = len(train_set.labels), strategy.num_replicas_in_sync
        self.steps_per_epoch = self.num_examples // (batch_size * self.num_towers)
        if not self.steps_per_epoch:
            raise UserError(
                f"--batch_size={batch_size} on {self.num_towers} towers exceeds the {self.num_examples} training "
                "images: use a smaller value"
            )
        self.copies = [towers.replicate(strategy, array) for array in train_set]

    def order(self, epoch: tf.Tensor) -> tf.Tensor:
        """The epoch's permutation of the images: (num_examples,) int32."""
        return tf.random.experimental.stateless_shuffle(tf.range(self.num_examples), (tf.constant(self.seed), epoch))

    def tower_batch(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        order: tf.Tensor,
        epoch: tf.Tensor,
        step: tf.Tensor,
        num_seeds: int,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The batch of one tower; called in its replica context.

        Args:
            images, labels: the tower's `copies`.
            order: the epoch's `order`.
            epoch, step: int32 scalars; the step counts from 0 in each epoch.
            num_seeds: how many seeds the network's random layers need.
        Returns:
            The network's inputs, labels (batch,) int32, and seeds (num_seeds, 2) int32.
        """
        tower = tf.distribute.get_replica_context().replica_id_in_sync_group
        index = step * self.num_towers + tower
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        counter = tf.cast(epoch * self.steps_per_epoch + step, tf.int64) * self.num_towers + tf.cast(tower, tf.int64)
        seeds = tf.random.stateless_uniform(
            (num_seeds + 1, 2), (tf.constant(self.seed, tf.int64), counter), None, None, tf.int32
        )
        return self.preprocess(tf.gather(images, chosen), seeds[0]), tf.gather(labels, chosen), seeds[1:]
