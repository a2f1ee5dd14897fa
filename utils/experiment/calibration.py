"""Likelihood and calibration: whether a network is as sure as it is right."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy import special

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.pruning import graph

BINS = 15


def measure(log_probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{"nll": negative log likelihood in nats per image, "ece": expected calibration error in %}.

    The expected calibration error is the mean over the images of |accuracy - confidence| of their bin: 15 bins of equal
    width by confidence, the probability of the predicted class (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, eq. 3).

    Args:
        log_probabilities: (N, classes), as `from_logits` gives them.
        labels: (N,).
    """
    confidence, accuracy, count = reliability(log_probabilities, labels)
    gaps = np.abs(accuracy - confidence)[count > 0]
    nll = -np.mean(log_probabilities[np.arange(len(labels)), labels])
    ece = np.sum(gaps * count[count > 0]) / len(labels)
    return {"nll": round(float(nll), 5), "ece": round(100 * float(ece), 4)}


def reliability(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of each of 15 bins: (15,) each, NaN where there is no image."""
    predicted = log_probabilities.argmax(-1)
    confidence = np.exp(log_probabilities.max(-1).astype(np.float64))
    # A confidence of 1 belongs to the last bin.
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, values, BINS) / count for values in (confidence, predicted == labels)]
    return *means, count


def from_logits(logits: np.ndarray) -> np.ndarray:
    """Log probabilities of logits (N, classes); of logits (N, samples, classes), of the samples' mean probabilities."""
    found = special.log_softmax(logits.astype(np.float64), axis=-1)
    if found.ndim == 3:
        found = special.logsumexp(found, axis=1) - np.log(found.shape[1])
    return found


def sampled(model: keras.Model, samples: int) -> Callable[..., tf.Tensor]:
    """A predictor of logits (N, samples, classes), each with a sample of the noise of its own, shared by a batch."""

    copies = {}

    def with_noise(node, tensors):
        layer = node.operation
        if not isinstance(layer, SBP):
            return None
        copy = copies.setdefault(layer.name, SBP.from_config(layer.get_config()))
        outputs = copy(tensors[0], training=True)
        copy.set_weights(layer.get_weights())
        return [outputs]

    predict = tf.function(graph.clone(model, with_noise), reduce_retracing=True)
    # `training` of the model's call would take the place of that of the noise's calls.
    return lambda images, training: tf.stack([predict(images) for _ in range(samples)], 1)
