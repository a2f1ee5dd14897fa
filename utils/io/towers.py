"""Towers: the replicas of the network that share a step, on the GPUs of one machine or on several machines."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError


def strategy(num_gpus: int | None = None) -> tf.distribute.Strategy:
    """The strategy for --num_gpus, or for $TF_CONFIG where that is a cluster of several machines.

    Args:
        num_gpus: None: one tower, on the first GPU if there is one; 0: one tower on the CPU; N: N towers, a GPU each.
    Raises:
        UserError: there are fewer GPUs, $TF_CONFIG is set as well or is not a valid cluster spec, or this process has
            used TensorFlow with other devices already.
    """
    if "TF_CONFIG" in os.environ:
        if num_gpus is not None:
            raise UserError(f"--num_gpus={num_gpus} and $TF_CONFIG exclude each other: a worker takes all its GPUs")
        tf.get_logger().setLevel("WARNING")  # else it logs every collective operation
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"$TF_CONFIG is not a valid cluster spec ({error}): see docs/running.md, or unset it"
            ) from None
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None and num_gpus > len(gpus):
        raise UserError(f"--num_gpus={num_gpus}, but this machine has {len(gpus)} GPUs: ask for at most that many")
    try:
        if num_gpus == 0:
            tf.config.set_visible_devices([], "GPU")
        elif num_gpus and num_gpus > 1:
            # Else the strategy takes all memory of all GPUs at once, and a run that trains the Original first none.
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        raise UserError(f"num_gpus={num_gpus}: TensorFlow uses other devices already, start a new process") from None
    if num_gpus and num_gpus > 1:
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(num_gpus)])
    return tf.distribute.get_strategy()


def replicate(strategy: tf.distribute.Strategy, array: np.ndarray) -> tf.Tensor | tf.distribute.DistributedValues:
    """A constant tensor on every tower of this machine, an argument for `strategy.run`."""
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(array)
    devices = strategy.extended.worker_devices

    def copy(context):
        with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
            return tf.constant(array)

    return strategy.experimental_distribute_values_from_function(copy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes files: of several machines, only the chief does."""
    return strategy.extended.should_checkpoint


def check_equal_across_workers(strategy: tf.distribute.Strategy, value: Any, message: str) -> None:
    """Raise UserError(message) unless the value, which JSON can hold, is the same on all machines."""
    if _has_several_machines(strategy):
        number = zlib.crc32(json.dumps(value, sort_keys=True).encode())
        with on_worker_loss(strategy, "--checkpoints_dir"):
            numbers = strategy.gather(strategy.run(lambda: tf.constant([number], tf.int64)), axis=0).numpy()
        if len(np.unique(numbers)) > 1:
            raise UserError(message)


def mean(strategy: tf.distribute.Strategy, number: float) -> float:
    """The mean of a number over the machines, the same on all of them."""
    if not _has_several_machines(strategy):
        return number
    return float(strategy.reduce("MEAN", strategy.run(lambda: tf.constant(number, tf.float32)), axis=None))


@contextlib.contextmanager
def on_worker_loss(strategy: tf.distribute.Strategy, directory: str) -> Iterator[None]:
    """Raise UserError where another machine does not take part in a collective operation any more."""
    try:
        yield
    except (tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.UnavailableError) as error:
        if not _has_several_machines(strategy):
            raise
        raise UserError(
            f"another machine of $TF_CONFIG is gone ({type(error).__name__}); {directory} keeps the last checkpoint: "
            "start the same command on all machines again"
        ) from None


def _has_several_machines(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
