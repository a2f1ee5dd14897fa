"""Testing: a network's outputs for images, and its error."""

import functools

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


def logits(model, images, prepare):
    """Outputs, (N, classes) float32, for uint8 images that `prepare` makes the input.

    Args:
        model: a Keras model, or what `runtimes.predictor` gives.
        images: (N, height, width, channels) uint8.
        prepare: from images to the model's input.
    """
    # Not model.predict: with several machines, it would wait for those that do not run it. As a graph, VGG-like with
    # noise takes a tenth of the time. Of VGG-like, batches of 500 take another gigabyte, which TensorFlow keeps.
    outputs = functools.partial(model, training=False)
    if isinstance(model, keras.Model):
        outputs = tf.function(outputs, reduce_retracing=True)
    starts = tqdm(range(0, len(images), 100), desc="testing", unit_scale=100, unit="image")
    batches = [outputs(prepare(images[start : start + 100])) for start in starts]
    return np.concatenate(batches).astype(np.float32)


def wrong(outputs, labels):
    """The share of logits whose largest is another than the label's, in %."""
    return round(100 * float(np.mean(outputs.argmax(-1) != labels)), 4)


def error(model, images, prepare):
    """The share of data.Images that a model gets wrong, in %."""
    return wrong(logits(model, images.images, prepare), images.labels)
