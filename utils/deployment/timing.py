"""Timing: how many times faster a network runs than the original, where people deploy it."""

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_sbp.lazy import tf
from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes
from keras_sbp.utils.pruning import counting, graph, rules

SECONDS_PER_CALL = 0.1
PAIRS, MIN_PAIRS = 30, 5
# Of large networks fewer pairs are timed, but MIN_PAIRS at least: what fits into this time.
MAX_SECONDS, MAX_SECONDS_OF_A_ROW = 30, 3
# A run times its row on this many images; of large networks on fewer, so that a batch takes some tenths of a second.
ROW_IMAGES, ROW_MACS = 1024, 2e10
# The GPU's fast kernels want filters and neurons in multiples of this.
GPU_MULTIPLE = 8
# An original is as fast as itself, and is not timed.
OF_ORIGINAL = {"cpu_speedup": 1.0, "gpu_speedup": 1.0, "timing": []}

Runtime = runtimes.LiteRT | runtimes.TensorFlow | runtimes.XLA


def speedups(original: keras.Model, smaller: keras.Model, what: str = "all") -> dict[str, Any]:
    """How many times faster a network runs than the original, where people deploy it.

    Both run the same way on the same images, alternating; a speedup is the median of the pairs' ratios.

    Args:
        original, smaller: models of one input shape.
        what: "row": only what a row shows, which takes some 3 seconds, on up to 1,024 images. "all": also one image,
            all cores, and TensorFlow, always on 1,024 images, which takes up to minutes.
    Returns:
        {"cpu_speedup": in LiteRT on one thread, "gpu_speedup": in TensorFlow on the first GPU, or None without one,
        "timing": a list of all measurements: runtime, device, processor, threads, batch_size, pairs, speedup,
        quartiles}.
    """
    cores, gpus = len(os.sched_getaffinity(0)), tf.config.list_logical_devices("GPU")
    if what == "row":
        images, seconds = images_of_a_row(original), MAX_SECONDS_OF_A_ROW
        timed = [("CPU", runtimes.LiteRT(1), images)]
    else:
        images, seconds = ROW_IMAGES, MAX_SECONDS
        timed = [("CPU", runtimes.LiteRT(threads), batch) for batch in (images, 1) for threads in sorted({1, cores})]
        timed.append(("CPU", runtimes.TensorFlow(tf.config.list_logical_devices("CPU")[0].name), images))
    timed += [("GPU", runtimes.TensorFlow(gpu.name), images) for gpu in gpus[:1]]
    found = [_speedup(original, smaller, batch, runtime, device, seconds) for device, runtime, batch in timed]
    return {
        "cpu_speedup": found[0]["speedup"],
        "gpu_speedup": found[-1]["speedup"] if gpus else None,
        "timing": found,
    }


def xla_speedups(original: keras.Model, smaller: keras.Model) -> dict[str, Any]:
    """See `speedups`; compiled by XLA, on JAX's first device, 1,024 images at a time, as it is and padded.

    Returns:
        {"gpu_speedup": as it is, or None without a GPU, "timing": both measurements; that of the network padded by
        `pruning.pad_filters` has another entry: padded_to}.
    """
    runtime = runtimes.XLA()
    padded = pruning.pad_filters(as_deployed(smaller), GPU_MULTIPLE)
    found, found_padded = (
        _speedup(original, network, ROW_IMAGES, runtime, runtime.device, MAX_SECONDS) for network in (smaller, padded)
    )
    timed = [found, found_padded | {"padded_to": GPU_MULTIPLE}]
    return {"gpu_speedup": found["speedup"] if runtime.is_gpu else None, "timing": timed}


def images_of_a_row(original: keras.Model) -> int:
    """On how many images at a time a run times its row."""
    macs = counting.multiply_adds(original)
    return int(min(ROW_IMAGES, max(1, ROW_MACS // max(1, macs))))


def _speedup(
    original: keras.Model, smaller: keras.Model, images: int, runtime: Runtime, device: str, seconds: float
) -> dict[str, Any]:
    found = seconds_per_batch(original, smaller, images, PAIRS, runtime, max_seconds=seconds)
    ratios = found[:, 0] / found[:, 1]
    return {
        "runtime": runtime.name,
        "device": device,
        "processor": processor(),
        "threads": runtime.threads,
        "batch_size": images,
        "pairs": len(ratios),
        "speedup": float(np.median(ratios)),
        "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
    }


def processor() -> str:
    """The name of this machine's CPU."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def as_deployed(model: keras.Model) -> keras.Model:
    """A network with its batch normalization folded and without noise (`pruning.shrink`).

    A network with neither is returned as it is: shrinking it would remove the padding of `pruning.pad_filters`.
    """
    found = [rules.of(node) for node in graph.nodes(graph.flatten_nested(model))]
    folds = any(isinstance(rule, (rules.Noise, rules.BatchNorm)) for rule in found)
    return pruning.shrink(model) if folds else model


def seconds(run: Callable[[int], Any], batches: int) -> float:
    """That a batch takes in a runner (`LiteRT.runner`), after one that is not timed."""
    run(1)  # its memory was out of the caches while another ran
    start = time.perf_counter()
    run(batches)
    return (time.perf_counter() - start) / batches


def batches_per_call(run: Callable[[int], Any]) -> int:
    """How many batches take a runner a tenth of a second."""
    return int(np.ceil(SECONDS_PER_CALL / seconds(run, 1)))


def seconds_per_batch(
    original: keras.Model,
    smaller: keras.Model,
    batch_size: int,
    pairs: int,
    runtime: Runtime,
    examples: np.ndarray | None = None,
    max_seconds: float = MAX_SECONDS,
) -> np.ndarray:
    """Seconds that a batch takes in each of two networks, which alternate: (pairs, 2), or fewer if they take long.

    Both are arranged in the same way (`as_deployed`, and as the runtime does it). Each runs as many batches as take the
    original a tenth of a second, after one that is not timed.

    Args:
        original, smaller: models of one input shape.
        batch_size: number of images.
        pairs: how often both run; after `max_seconds`, five times is enough.
        runtime: what runs them.
        examples: (N, ...), what they run on; by default random images.
    """
    if examples is None:
        shape = (runtimes.BATCHES * batch_size, *original.inputs[0].shape[1:])
        examples = np.random.default_rng(0).random(shape, np.float32)
    images = np.resize(examples, (runtimes.BATCHES, batch_size, *examples.shape[1:]))
    runs = [runtime.runner(as_deployed(model), images) for model in (original, smaller)]

    for run in runs:
        run(2)
    batches = batches_per_call(runs[0])
    found, start = [], time.perf_counter()
    for _ in tqdm(range(pairs), desc=f"timing in {runtime.name}, {batch_size:,} at a time", unit="pair", leave=False):
        found.append([seconds(run, batches) for run in runs])
        if len(found) >= MIN_PAIRS and time.perf_counter() - start > max_seconds:
            break
    return np.array(found)
