"""Likelihood and calibration, against counts by hand and the distribution of the noise."""

import keras
import numpy as np
import pytest

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.experiment import calibration


def test_likelihood_and_calibration_error_of_four_images():
    """Confidences 0.6, 0.62, 0.9, 1: the first two are in one bin, one of them right; the others are both right."""
    probabilities = np.array([[0.6, 0.4], [0.38, 0.62], [0.1, 0.9], [1.0, 1e-12]])
    labels = np.array([0, 0, 1, 0])
    found = calibration.measure(np.log(probabilities), labels)
    assert found["nll"] == pytest.approx(-np.log([0.6, 0.38, 0.9, 1.0]).mean(), abs=1e-5)
    assert found["ece"] == pytest.approx(100 * (2 * abs(0.5 - 0.61) + 0.1 + 0) / 4, abs=1e-4)
    confidence, accuracy, count = calibration.reliability(np.log(probabilities), labels)
    assert count[[9, 13, 14]].tolist() == [2, 1, 1] and count.sum() == 4
    assert confidence[9] == pytest.approx(0.61) and accuracy[9] == 0.5 and np.isnan(accuracy[0])


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharper_ones_are_not():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 5))
    probabilities = np.exp(calibration.from_logits(logits))
    labels = (probabilities.cumsum(1) < rng.random((len(logits), 1))).sum(1)
    entropy = -(probabilities * np.log(probabilities)).sum(1).mean()
    found = calibration.measure(np.log(probabilities), labels)
    assert found["ece"] < 1 and found["nll"] == pytest.approx(entropy, rel=0.02)
    assert calibration.measure(calibration.from_logits(3 * logits), labels)["ece"] > 15


def test_samples_are_shared_by_a_batch_and_their_probabilities_averaged():
    inputs = keras.Input((3,))
    noise = SBP(log_sigma=-1.0, seed=0)
    model = keras.Model(inputs, noise(inputs))
    x = np.random.default_rng(0).uniform(1, 2, (4, 3)).astype(np.float32)
    logits = np.asarray(calibration.sampled(model, 2000)(x, training=False))
    assert logits.shape == (4, 2000, 3)
    theta = logits / x[:, None]
    np.testing.assert_allclose(theta, np.broadcast_to(theta[:1], theta.shape), rtol=1e-5)
    assert theta[0].std(0).min() > 0.1 and theta[0].mean(0) == pytest.approx(np.asarray(noise.multiplier()), rel=0.05)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(calibration.from_logits(logits)), softmax.mean(1), rtol=1e-5)


def test_only_the_noise_is_in_training():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.9)(keras.layers.BatchNormalization()(inputs))
    model = keras.Model(inputs, SBP(log_sigma=-20.0, scale=2.0)(hidden))
    x = np.random.default_rng(0).normal(5, 2, (64, 3)).astype(np.float32)
    logits = np.asarray(calibration.sampled(model, 1)(x, training=False))[:, 0]
    np.testing.assert_allclose(logits, model(x), rtol=1e-3)
