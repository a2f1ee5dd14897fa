"""Timing: how many times faster a network runs than the original, where people deploy it."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes
from keras_sbp.utils.pruning import graph, rules

SECONDS_PER_CALL = 0.1
# Of large networks fewer pairs are timed: what fits into this time, but at least this number.
MAX_SECONDS, MIN_PAIRS = 30, 5

Runtime = runtimes.LiteRT | runtimes.TensorFlow


def speedups(
    original: keras.Model, smaller: keras.Model, batch_sizes: Sequence[int] = (1024, 1), pairs: int = 30
) -> dict[str, Any]:
    """How many times faster a network runs than the original, where people deploy it.

    Both run the same way on the same images, alternating; a speedup is the median of the pairs' ratios.

    Args:
        original, smaller: models of one input shape.
        batch_sizes: numbers of images; the first is that of cpu_speedup and gpu_speedup.
        pairs: how often both run.
    Returns:
        {"cpu_speedup": in LiteRT on one thread, "gpu_speedup": in TensorFlow on the first GPU, or None without one,
        "timing": a list of all measurements: runtime, device, threads, batch_size, pairs, speedup, quartiles}.
    """
    cores, gpus = len(os.sched_getaffinity(0)), tf.config.list_logical_devices("GPU")
    on_cpu = [
        _speedup(original, smaller, batch_size, pairs, runtimes.LiteRT(threads), "CPU")
        for batch_size in batch_sizes
        for threads in sorted({1, cores})
    ]
    cpu = tf.config.list_logical_devices("CPU")[0].name
    on_cpu.append(_speedup(original, smaller, batch_sizes[0], pairs, runtimes.TensorFlow(cpu), "CPU"))
    on_gpu = [
        _speedup(original, smaller, batch_sizes[0], pairs, runtimes.TensorFlow(gpu.name), "GPU") for gpu in gpus[:1]
    ]
    return {
        "cpu_speedup": on_cpu[0]["speedup"],
        "gpu_speedup": on_gpu[0]["speedup"] if on_gpu else None,
        "timing": on_cpu + on_gpu,
    }


def _speedup(
    original: keras.Model, smaller: keras.Model, batch_size: int, pairs: int, runtime: Runtime, device: str
) -> dict[str, Any]:
    seconds = seconds_per_batch(original, smaller, batch_size, pairs, runtime)
    ratios = seconds[:, 0] / seconds[:, 1]
    return {
        "runtime": runtime.name,
        "device": device,
        "threads": runtime.threads,
        "batch_size": batch_size,
        "pairs": len(ratios),
        "speedup": float(np.median(ratios)),
        "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def as_deployed(model: keras.Model) -> keras.Model:
    """A network with its batch normalization folded and without noise (`pruning.shrink`).

    A network with neither is returned as it is: shrinking it would remove the padding of `pruning.pad_filters`.
    """
    found = [rules.of(node) for node in graph.nodes(graph.flatten_nested(model))]
    folds = any(isinstance(rule, (rules.Noise, rules.BatchNorm)) for rule in found)
    return pruning.shrink(model) if folds else model


def seconds_per_batch(
    original: keras.Model,
    smaller: keras.Model,
    batch_size: int,
    pairs: int,
    runtime: Runtime,
    examples: np.ndarray | None = None,
) -> np.ndarray:
    """Seconds that a batch takes in each of two networks, which alternate: (pairs, 2), or fewer if they take long.

    Both are arranged in the same way (`as_deployed`, `arrange.for_cpu`). Each runs as many batches as take the
    original a tenth of a second, after one that is not timed.

    Args:
        original, smaller: models of one input shape.
        batch_size: number of images.
        pairs: how often both run; after half a minute, five times is enough.
        runtime: what runs them.
        examples: (N, ...), what they run on; by default random images.
    """
    if examples is None:
        shape = (runtimes.BATCHES * batch_size, *original.inputs[0].shape[1:])
        examples = np.random.default_rng(0).random(shape, np.float32)
    images = np.resize(examples, (runtimes.BATCHES, batch_size, *examples.shape[1:]))
    runs = [runtime.runner(as_deployed(model), images) for model in (original, smaller)]

    def seconds(run: Callable[[int], Any], batches: int) -> float:
        run(1)  # its memory was out of the caches while the other network ran
        start = time.perf_counter()
        run(batches)
        return (time.perf_counter() - start) / batches

    for run in runs:
        run(2)
    batches = int(np.ceil(SECONDS_PER_CALL / seconds(runs[0], 1)))
    found, start = [], time.perf_counter()
    for _ in tqdm(range(pairs), desc="timing", unit="pair", leave=False):
        found.append([seconds(run, batches) for run in runs])
        if len(found) >= MIN_PAIRS and time.perf_counter() - start > MAX_SECONDS:
            break
    return np.array(found)
