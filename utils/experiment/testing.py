"""Testing: a network's logits for images, their error, likelihood and calibration."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_sbp.utils.experiment import calibration
from keras_sbp.utils.io.data import Images
from keras_sbp.utils.io.preprocessing import Preprocess

# A Keras model, or `deployment.runtimes.predictor`.
Predictor = Callable[..., tf.Tensor | np.ndarray]


def logits(model: Predictor, images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The outputs, (N, classes) float32, for images (N, height, width, channels) uint8."""
    # Not model.predict, which waits for the other machines. As a graph, VGG-like with noise takes a tenth of the time.
    # Batches of 500 images would take another gigabyte on VGG-like, which TensorFlow does not give back.
    predict = functools.partial(model, training=False)
    if isinstance(model, keras.Model):
        predict = tf.function(predict, reduce_retracing=True)
    starts = tqdm(range(0, len(images), 100), desc="testing", unit_scale=100, unit="image")
    batches = [predict(preprocess(images[start : start + 100])) for start in starts]
    return np.concatenate(batches).astype(np.float32)


def error_rate(logits: np.ndarray, labels: np.ndarray) -> float:
    """The misclassified images in %."""
    return round(100 * float(np.mean(logits.argmax(-1) != labels)), 4)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{"error": in %, "nll", "ece": as `calibration.measure`}, for logits as `calibration.from_logits` takes them."""
    log_probabilities = calibration.from_logits(logits)
    return {"error": error_rate(log_probabilities, labels), **calibration.measure(log_probabilities, labels)}


def error(model: Predictor, test_set: Images, preprocess: Preprocess) -> float:
    """A model's error on a test set in %."""
    return error_rate(logits(model, test_set.images, preprocess), test_set.labels)
