"""What a network costs: multiply-adds, counted, and time, measured."""

import os
import time
import warnings

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from utils import inference, pruning
from utils.pruning import graph, rules

BATCHES = 4
SECONDS_A_CALL = 0.1
# Of a pair of large networks, fewer pairs are timed than asked for: what fits in so many seconds, but these at least.
SECONDS_ALL, FEWEST_PAIRS = 60, 5


def multiply_adds(model):
    """Multiply-adds of a Keras model for one example: of what multiplies units by weights and sums up, as the paper
    counts FLOPs, and of attention's products.

    Of a kind of layer whose multiply-adds are not known, and where images are of any size, a UserWarning says so; they
    are left out, and counted for one position.
    """
    total, unknown, unsized = 0, set(), set()
    for node in graph.nodes(graph.opened(model)):
        inputs, outputs = ([rules.width(tensor) for tensor in side] for side in (node.input_tensors, node.outputs))
        found = rules.of(node).multiply_adds(inputs, outputs)
        if found is None:
            unknown.add(type(node.operation).__name__)
        elif found and any(None in tensor.shape[1:-1] for tensor in (*node.input_tensors, *node.outputs)):
            unsized.add(node.operation.name)
        total += found or 0
    if unknown:
        warnings.warn(f"multiply-adds without those of {', '.join(sorted(unknown))}, which are not known", stacklevel=2)
    if unsized:
        warnings.warn(f"multiply-adds of {', '.join(sorted(unsized))} for a size of 1, as any will do", stacklevel=2)
    return total


def kernels(model):
    """{layer's name: shape of its kernel} of a model's dense and convolution layers."""
    return {layer.name: tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")}


def unit_costs(model):
    """{noise layer's name: the multiply-adds that go when one of its units goes} of a network with every unit alive."""
    alive = {layer.name: np.ones(len(layer.multiplier())) for layer in model.layers if hasattr(layer, "multiplier")}
    whole = pruning.Living(model, alive).multiply_adds()
    without = {name: {**alive, name: units - np.eye(len(units))[0]} for name, units in alive.items()}
    return {name: whole - pruning.Living(model, left).multiply_adds() for name, left in without.items()}


def speedups(original, smaller, batch_size=1024, pairs=30):
    """How many times faster a network is than the original: on the CPU, and on the first GPU where there is one.

    Both run the same way on the same images, in turns; the figure is the median of the pairs' ratios.

    Args:
        original, smaller: Keras models of one input shape.
    Returns:
        {"cpu_speedup", "gpu_speedup": float or None, "timing": how it was measured and the quartiles of the ratios}.
    """
    threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0))
    result = {"timing": {"batch_size": batch_size, "threads": threads}}
    for kind in ("cpu", "gpu"):
        devices = tf.config.list_logical_devices(kind.upper())
        result[f"{kind}_speedup"] = None
        if devices:
            seconds = timings(original, smaller, batch_size, pairs, devices[0].name)
            ratios = seconds[:, 0] / seconds[:, 1]
            result[f"{kind}_speedup"] = float(np.median(ratios))
            result["timing"] |= {
                f"{kind}_pairs": len(ratios),
                f"{kind}_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
            }
    return result


def timings(original, smaller, batch_size, pairs, device, examples=None):
    """Seconds that a batch takes in each of two networks, in turns: (pairs, 2), or less if they take long.

    Both are made fast in the same way (`pruning.shrink`, which folds batch normalisation, and `inference.fast`) and run
    over batch after batch inside the graph, as many as take the original a tenth of a second: how long Python takes for
    a call is not in it.

    Args:
        original, smaller: Keras models of one input shape.
        device: the name of a tf.device.
        examples: (N, ...), what they run on. None: random images.
    """
    if examples is None:
        examples = np.random.default_rng(0).random((BATCHES * batch_size, *original.inputs[0].shape[1:]), np.float32)
    images = np.resize(examples, (BATCHES, batch_size, *examples.shape[1:]))
    with tf.device(device):
        runs = [
            _run(inference.fast(pruning.shrink(model)), tuple(map(tf.constant, images)))
            for model in (original, smaller)
        ]

        def seconds(run, batches):
            start = time.perf_counter()
            # A number comes back to the host: the clock stops when the device is done.
            run(batches).numpy()
            return (time.perf_counter() - start) / batches

        for run in runs * 3:
            seconds(run, 1)
        batches = int(np.ceil(SECONDS_A_CALL / seconds(runs[0], 1)))
        turns, start = [], time.perf_counter()
        for _ in tqdm(range(pairs), desc="timing", unit="pair", leave=False):
            turns.append([seconds(run, batches) for run in runs])
            if len(turns) >= FEWEST_PAIRS and time.perf_counter() - start > SECONDS_ALL:
                break
        return np.array(turns)


def _run(model, images):
    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
    def run(batches):
        total, queue = 0.0, images
        for _ in tf.range(batches):
            # One batch after the other, each other images than the one before, and none of them copied.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            total += tf.reduce_sum(model(queue[0]))
            queue = (*queue[1:], queue[0])
        return total

    return run
