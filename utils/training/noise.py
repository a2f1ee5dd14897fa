"""The noise of a step: one theta per unit, and the kernels that absorb it.

A layer with kernel W computes W (theta * x) = (W * theta) x of noisy units: multiplying theta into the kernel is faster
where the kernel is smaller than the units' values in a batch. Where it is larger, and x are the images, which need no
gradient, theta multiplies x; but its gradient is then derived from the kernel's (`_with_gradient_for`) instead of being
summed over all pixels of the batch.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_sbp.layers import sbp


class Absorption(NamedTuple):
    """A layer of noise next to a kernel.

    Attributes:
        noise: the layer of noise.
        consumer: the only layer that uses its outputs.
        in_kernel: whether theta multiplies the kernel; else only theta's gradient comes from it.
    """

    noise: sbp.SBP
    consumer: keras.layers.Dense | keras.layers.Conv2D
    in_kernel: bool


class Noise:
    """Everything random in a network.

    Args:
        model: the network.
        batch_size: images per step and tower, which decides what theta multiplies.
    Attributes:
        num_seeds: how many seeds a step needs.
    """

    def __init__(self, model: keras.Model, batch_size: int):
        self.generators = [layer.seed_generator for layer in model.layers if hasattr(layer, "seed_generator")]
        self.num_seeds = len(self.generators)
        self.layers = [layer for layer in model.layers if isinstance(layer, sbp.SBP)]
        self.absorptions = absorptions(model, batch_size)

    @contextlib.contextmanager
    def sampled(self, seeds: tf.Tensor) -> Iterator[keras.StatelessScope]:
        """A context in which the model, called with training=True, has the noise of these seeds.

        Args:
            seeds: (num_seeds, 2) int.
        Yields:
            The scope that holds the values of variables which the call assigns.
        """
        state = [
            (generator.state, tf.cast(seed, generator.state.dtype))
            for generator, seed in zip(self.generators, tf.unstack(seeds))
        ]
        with keras.StatelessScope(state_mapping=state) as scope, sbp.sampling(self.layers) as samples:
            for noise, consumer, in_kernel in self.absorptions:
                theta, kernel = samples[noise], consumer.kernel
                if in_kernel:
                    scope.add_update((kernel, theta[:, None] * kernel.value))
                    samples[noise] = tf.constant(1.0)
                else:
                    scope.add_update((kernel, _with_gradient_for(theta, kernel.value)))
                    samples[noise] = tf.stop_gradient(theta)
            yield scope


def absorptions(model: keras.Model, batch_size: int) -> list[Absorption]:
    """Where a kernel can absorb noise: in a chain of operations only, where nothing else uses the noisy units."""
    if not all(after.input is before.output for before, after in itertools.pairwise(model.operations)):
        return []
    found, of_images = [], True
    for before, after in itertools.pairwise(model.operations):
        if isinstance(before, sbp.SBP) and type(after) in (keras.layers.Dense, keras.layers.Conv2D):
            smaller = math.prod(after.kernel.shape) < batch_size * math.prod(before.output.shape[1:])
            if (of_images or smaller) and after.kernel.shape[-2] == before.output.shape[-1]:
                found.append(Absorption(before, after, in_kernel=smaller))
        of_images = of_images and not getattr(before, "weights", [])
    return found


@tf.custom_gradient
def _with_gradient_for(theta, kernel):
    """The kernel, with a gradient also for the theta of its inputs, which is held constant elsewhere.

    The loss depends on their product only, so theta * dL/dtheta equals kernel * dL/dkernel, summed over the outputs.
    """

    def gradient(by_kernel):
        others = [axis for axis in range(len(kernel.shape)) if axis != len(kernel.shape) - 2]
        return tf.reduce_sum(kernel * by_kernel, others) / theta, by_kernel

    return tf.identity(kernel), gradient
