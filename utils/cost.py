"""What a network costs: multiply-adds, counted, and time, measured."""

import os
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from utils import pruning


def multiply_adds(model):
    """Multiply-adds of a Keras model's dense and convolution layers for one example, as the paper counts FLOPs."""
    return sum(_positions(layer) * int(np.prod(layer.kernel.shape)) for layer in _weighted(model))


def kernels(model):
    """{layer's name: shape of its kernel} of a model's dense and convolution layers."""
    return {layer.name: tuple(layer.kernel.shape) for layer in _weighted(model)}


def unit_costs(model):
    """{noise layer's name: the multiply-adds that go when one of its units goes} of a network with every unit alive."""
    alive = {layer.name: np.ones(layer.input.shape[-1]) for layer in model.layers if hasattr(layer, "multiplier")}
    whole = _living_multiply_adds(model, alive)
    without = {name: {**alive, name: units - np.eye(len(units))[0]} for name, units in alive.items()}
    return {name: whole - _living_multiply_adds(model, multipliers) for name, multipliers in without.items()}


def speedups(original, smaller, batch_size=1024, pairs=30):
    """How many times faster a network is than the original: on the CPU, and on the first GPU where there is one.

    Both run the same way on the same images, in turns; the figure is the median of the pairs' ratios.

    Args:
        original, smaller: Keras models of one input shape.
    Returns:
        {"cpu_speedup", "gpu_speedup": float or None, "timing": how it was measured and the quartiles of the ratios}.
    """
    images = np.random.default_rng(0).random((batch_size, *original.inputs[0].shape[1:]), np.float32)
    result = {"timing": {"batch_size": batch_size, "pairs": pairs, "threads": os.cpu_count()}}
    for kind in ("cpu", "gpu"):
        devices = tf.config.list_logical_devices(kind.upper())
        ratios = _ratios(original, smaller, images, pairs, devices[0].name) if devices else None
        result[f"{kind}_speedup"] = float(np.median(ratios)) if devices else None
        if devices:
            result["timing"][f"{kind}_quartiles"] = np.quantile(ratios, [0.25, 0.75]).tolist()
    return result


def _ratios(original, smaller, images, pairs, device):
    with tf.device(device):
        x = tf.constant(images)
        # A sum comes back to the host: the clock stops when the device is done.
        runs = [tf.function(lambda x, model=model: tf.reduce_sum(model(x))) for model in (original, smaller)]

        def seconds(run):
            start = time.perf_counter()
            run(x).numpy()
            return time.perf_counter() - start

        for run in runs * 3:
            seconds(run)
        return [seconds(runs[0]) / seconds(runs[1]) for _ in tqdm(range(pairs), desc="timing", unit="pair")]


def _living_multiply_adds(model, multipliers):
    keep = pruning.Living(model, multipliers).keep
    return sum(
        _positions(layer)
        * int(np.prod(layer.kernel.shape[:-2]))
        * int(keep[id(layer.input)].sum())
        * int(keep[id(layer.output)].sum())
        for layer in _weighted(model)
    )


def _weighted(model):
    return [layer for layer in model.layers if isinstance(layer, pruning.WEIGHTED)]


def _positions(layer):
    return int(np.prod(layer.output.shape[1:-1]))
