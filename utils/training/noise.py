"""The noise of a step: one theta a unit, and the kernels that take it in place of the units.

A layer that reads theta * x by a kernel W computes W (theta * x) = (W * theta) x: with theta in the kernel the same
products take less time where the kernel is smaller than the units' values in a batch. Where it is larger and x is the
images, which need no gradient, theta multiplies x, but theta's own gradient is read off the kernel's (`_carrying`) and
not summed over all pixels of the batch.
"""

import contextlib
import itertools
import math

import keras
import tensorflow as tf

from keras_sbp.layers import sbp


class Noise:
    """All that is random in a network.

    Args:
        model: a Keras model.
        batch_size: images a step, by which it is decided what theta multiplies.
    Attributes:
        sources: how many seeds a step needs.
    """

    def __init__(self, model, batch_size):
        self.generators = [layer.seed_generator for layer in model.layers if hasattr(layer, "seed_generator")]
        self.sources = len(self.generators)
        self.layers = [layer for layer in model.layers if isinstance(layer, sbp.SBP)]
        self.readers = readers(model, batch_size)

    @contextlib.contextmanager
    def drawn(self, seeds):
        """Within it, the model called with training=True has the noise of these seeds, (sources, 2) int32.

        Yields the keras.StatelessScope in which variables have the values that the call gives them.
        """
        state = [
            (generator.state, tf.cast(seed, generator.state.dtype))
            for generator, seed in zip(self.generators, tf.unstack(seeds))
        ]
        with keras.StatelessScope(state_mapping=state) as scope, sbp.one_draw(self.layers):
            for noise, reader, smaller in self.readers:
                if smaller:
                    scope.add_update((reader.kernel, noise.drawn[:, None] * reader.kernel.value))
                    noise.drawn = tf.constant(1.0)
                else:
                    scope.add_update((reader.kernel, _carrying(noise.drawn, reader.kernel.value)))
                    noise.drawn = tf.stop_gradient(noise.drawn)
            yield scope


def readers(model, batch_size):
    """[(noise layer, the layer that reads its units, whether the kernel there is smaller than the units' values)].

    Only where the operations are a chain, so that nothing else reads the units.
    """
    if not all(after.input is before.output for before, after in itertools.pairwise(model.operations)):
        return []
    found, of_images = [], True
    for before, after in itertools.pairwise(model.operations):
        if isinstance(before, sbp.SBP) and type(after) in (keras.layers.Dense, keras.layers.Conv2D):
            smaller = math.prod(after.kernel.shape) < batch_size * math.prod(before.output.shape[1:])
            if (of_images or smaller) and after.kernel.shape[-2] == before.output.shape[-1]:
                found.append((before, after, smaller))
        of_images = of_images and not getattr(before, "weights", [])
    return found


@tf.custom_gradient
def _carrying(theta, kernel):
    """The kernel, with a gradient for the theta of its inputs as well, which may then be held.

    The loss knows no more of both than their product, so that each times its derivative is the same sum.
    """

    def gradient(by_kernel):
        others = [axis for axis in range(len(kernel.shape)) if axis != len(kernel.shape) - 2]
        return tf.reduce_sum(kernel * by_kernel, others) / theta, by_kernel

    return tf.identity(kernel), gradient
