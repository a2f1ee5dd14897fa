"""Towers: the replicas of the network that share a step, on the GPUs of one machine or on several machines."""

import contextlib
import os

import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError


def strategy(num_gpus=None):
    """The tf.distribute strategy for --num_gpus, or for $TF_CONFIG where that names several machines.

    Args:
        num_gpus: None: one tower, on the first GPU if there is one; 0: one tower on the CPU; N: N GPUs, a tower each.
    Raises:
        UserError: there are fewer GPUs than that, $TF_CONFIG is there, too, or it cannot be used.
    """
    if "TF_CONFIG" in os.environ:
        if num_gpus is not None:
            raise UserError(f"--num_gpus={num_gpus} and $TF_CONFIG, with which a machine takes all its GPUs: give one")
        tf.get_logger().setLevel("WARNING")  # else it tells of every collective operation
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise UserError(f"$TF_CONFIG is no cluster ({error}): give one as in docs/running.md, or none") from None
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None and num_gpus > len(gpus):
        raise UserError(f"--num_gpus={num_gpus}, but this machine has {len(gpus)} GPUs; ask for at most that many")
    if num_gpus == 0:
        tf.config.set_visible_devices([], "GPU")
    if num_gpus and num_gpus > 1:
        # The strategy would take all memory of all GPUs at once, and leave none to who makes the Original first.
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
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
    """Whether this process writes the files: with several machines, only their chief does."""
    return strategy.extended.should_checkpoint


def agree(strategy, number, otherwise):
    """Raise UserError with the text `otherwise` where the number is not the same on all machines."""
    if _several_machines(strategy):
        with all_there(strategy, "--checkpoints_dir"):
            numbers = strategy.gather(strategy.run(lambda: tf.constant([number], tf.int64)), axis=0).numpy()
        if len(np.unique(numbers)) > 1:
            raise UserError(otherwise)


def mean(strategy, number):
    """The mean of a number over the machines, the same on all of them."""
    if not _several_machines(strategy):
        return number
    return float(strategy.reduce("MEAN", strategy.run(lambda: tf.constant(number, tf.float32)), axis=None))


@contextlib.contextmanager
def all_there(strategy, folder):
    """Turn the error of a step that another machine did not take part in into a UserError."""
    try:
        yield
    except (tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.UnavailableError) as error:
        if not _several_machines(strategy):
            raise
        raise UserError(
            f"another machine of $TF_CONFIG is gone ({type(error).__name__}); {folder} keeps the last checkpoint: "
            "start the same command on all of them again"
        ) from None


def _several_machines(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
