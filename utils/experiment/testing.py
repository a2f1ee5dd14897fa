"""Testing: a network's outputs for images, and its error."""

import numpy as np
from tqdm import tqdm


def logits(model, images, prepare):
    """A model's outputs, (N, classes) float32, of uint8 images that `prepare` makes its input of."""
    # Not model.predict: with several machines, it would wait for those that do not run it. Of VGG-like, batches of 500
    # take another gigabyte, which TensorFlow keeps.
    starts = tqdm(range(0, len(images), 100), desc="testing", unit_scale=100, unit="image")
    batches = [model(prepare(images[start : start + 100]), training=False) for start in starts]
    return np.concatenate(batches).astype(np.float32)


def wrong(outputs, labels):
    """The share of logits whose largest is another than the label's, in %."""
    return round(100 * float(np.mean(outputs.argmax(-1) != labels)), 4)


def error(model, images, prepare):
    """The share of data.Images that a model gets wrong, in %."""
    return wrong(logits(model, images.images, prepare), images.labels)
