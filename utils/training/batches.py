"""Which images a tower sees at which step, and the seeds of all that is random there."""

import tensorflow as tf

from keras_sbp.utils.io import towers
from keras_sbp.utils.io.command_line import UserError


class Batches:
    """The mini-batches of a run: a function of (seed, epoch, step, tower), so that a restart needs nothing more.

    Args:
        train_set: data.Images; every tower gets a copy.
        prepare: from uint8 images (batch, ...) and a seed (2,) to the network's input, inside the graph.
        batch_size: images a tower a step.
        seed: of order, noise and augmentation.
        strategy: of tf.distribute; its towers share a step.
    Attributes:
        count: how many images there are.
        steps: how many an epoch has.
        copies: the images and the labels, each a tensor on every tower, to be given to `strategy.run`.
    Raises:
        UserError: a step needs more images than there are.
    """

    def __init__(self, train_set, prepare, batch_size, seed, strategy):
        self.prepare, self.batch_size, self.seed = prepare, batch_size, seed
        self.count, self.towers = len(train_set.labels), strategy.num_replicas_in_sync
        self.steps = self.count // (batch_size * self.towers)
        if not self.steps:
            raise UserError(
                f"--batch_size={batch_size} on {self.towers} towers is more than the {self.count} training images: "
                "make it less"
            )
        self.copies = [towers.copies(strategy, array) for array in train_set]

    def order(self, epoch):
        """The epoch's permutation of the images: (count,) int32."""
        return tf.random.experimental.stateless_shuffle(tf.range(self.count), (tf.constant(self.seed), epoch))

    def take(self, images, labels, order, epoch, step, sources):
        """This tower's batch; called on a tower, on its copies.

        Args:
            images, labels: the tower's `copies`.
            order: of `order`.
            epoch, step: int32 scalars; the step is the epoch's.
            sources: how many seeds the network's own random layers need.
        Returns:
            The network's input, labels (batch,) int32, and seeds (sources, 2) int32.
        """
        tower = tf.distribute.get_replica_context().replica_id_in_sync_group
        place = step * self.towers + tower
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        moment = tf.cast(epoch * self.steps + step, tf.int64) * self.towers + tf.cast(tower, tf.int64)
        seeds = tf.random.stateless_uniform(
            (sources + 1, 2), (tf.constant(self.seed, tf.int64), moment), None, None, tf.int32
        )
        return self.prepare(tf.gather(images, chosen), seeds[0]), tf.gather(labels, chosen), seeds[1:]
