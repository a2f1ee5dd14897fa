"""Timing: how many times faster a network runs than the original, where people deploy it."""

import os
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes
from keras_sbp.utils.pruning import graph, rules

SECONDS_A_CALL = 0.1
# Of a pair of large networks, fewer pairs are timed than asked for: what fits in so many seconds, but these at least.
SECONDS_ALL, FEWEST_PAIRS = 30, 5


def speedups(original, smaller, batch_sizes=(1024, 1), pairs=30):
    """How many times faster a network is than the original, where people deploy it.

    Both run the same way on the same images, in turns; a figure is the median of the pairs' ratios.

    Args:
        original, smaller: Keras models of one input shape.
        batch_sizes: images at a time; the first is that of cpu_speedup and gpu_speedup.
    Returns:
        {"cpu_speedup": in LiteRT on one thread, "gpu_speedup": in TensorFlow on the first GPU, or None without one,
        "timing": a list of all measurements: runtime, device, threads, batch_size, pairs, speedup, quartiles}.
    """
    cores, gpus = len(os.sched_getaffinity(0)), tf.config.list_logical_devices("GPU")
    found = [
        _speedup(original, smaller, batch_size, pairs, runtimes.LiteRT(threads), "CPU")
        for batch_size in batch_sizes
        for threads in sorted({1, cores})
    ]
    cpu = tf.config.list_logical_devices("CPU")[0].name
    found.append(_speedup(original, smaller, batch_sizes[0], pairs, runtimes.TensorFlow(cpu), "CPU"))
    on_gpu = [
        _speedup(original, smaller, batch_sizes[0], pairs, runtimes.TensorFlow(gpu.name), "GPU") for gpu in gpus[:1]
    ]
    return {
        "cpu_speedup": found[0]["speedup"],
        "gpu_speedup": on_gpu[0]["speedup"] if on_gpu else None,
        "timing": found + on_gpu,
    }


def _speedup(original, smaller, batch_size, pairs, runtime, device):
    seconds = timings(original, smaller, batch_size, pairs, runtime)
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


def as_deployed(model):
    """A network with its batch normalisation folded (`pruning.shrink`).

    Without any, it is not shrunk: that would take out again what `pruning.pad_filters` put in.
    """
    found = [rules.of(node) for node in graph.nodes(graph.flatten_nested(model))]
    folds = any(isinstance(rule, (rules.Noise, rules.Normalisation)) for rule in found)
    return pruning.shrink(model) if folds else model


def timings(original, smaller, batch_size, pairs, runtime, examples=None):
    """Seconds that a batch takes in each of two networks, in turns: (pairs, 2), or less if they take long.

    Both are arranged in the same way (`as_deployed`, `arrange.fast`). A turn is as many batches as take the original
    a tenth of a second, after one that is not timed.

    Args:
        original, smaller: Keras models of one input shape.
        batch_size: images at a time.
        pairs: turns; after half a minute, five will do.
        runtime: `LiteRT` or `TensorFlow`.
        examples: (N, ...), what they run on. None: random images.
    """
    if examples is None:
        examples = np.random.default_rng(0).random(
            (runtimes.BATCHES * batch_size, *original.inputs[0].shape[1:]), np.float32
        )
    images = np.resize(examples, (runtimes.BATCHES, batch_size, *examples.shape[1:]))
    runs = [runtime.runner(as_deployed(model), images) for model in (original, smaller)]

    def seconds(run, batches):
        run(1)  # its memory was out of the caches while the other network ran
        start = time.perf_counter()
        run(batches)
        return (time.perf_counter() - start) / batches

    for run in runs:
        run(2)
    batches = int(np.ceil(SECONDS_A_CALL / seconds(runs[0], 1)))
    turns, start = [], time.perf_counter()
    for _ in tqdm(range(pairs), desc="timing", unit="pair", leave=False):
        turns.append([seconds(run, batches) for run in runs])
        if len(turns) >= FEWEST_PAIRS and time.perf_counter() - start > SECONDS_ALL:
            break
    return np.array(turns)
