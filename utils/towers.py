"""Towers: the replicas of the network that share a step, on the GPUs of one machine or on several machines."""

import os

import tensorflow as tf

from utils.command_line import UserError


def strategy(num_gpus=None):
    """The tf.distribute strategy for --num_gpus, or for $TF_CONFIG where that names several machines.

    Args:
        num_gpus: None: one tower, on the first GPU if there is one; 0: one tower on the CPU; N: N GPUs, a tower each.
    Raises:
        UserError: there are fewer GPUs than that.
    """
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None and num_gpus > len(gpus):
        raise UserError(f"--num_gpus={num_gpus}, but this machine has {len(gpus)} GPUs; ask for at most that many")
    if num_gpus == 0:
        tf.config.set_visible_devices([], "GPU")
    if num_gpus and num_gpus > 1:
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(num_gpus)])
    return tf.distribute.get_strategy()


def copies(strategy, array):
    """A constant tensor on every tower of this machine, to be given to `strategy.run`."""
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(array)
    devices = strategy.extended.worker_devices

    def copy(context):
        with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
            return tf.constant(array)

    return strategy.experimental_distribute_values_from_function(copy)


def is_chief(strategy):
    """Whether this process writes the files: with several machines, only the first of them does."""
    resolver = strategy.cluster_resolver if hasattr(strategy, "cluster_resolver") else None
    return resolver is None or not resolver.task_id
