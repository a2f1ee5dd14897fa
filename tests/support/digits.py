"""scikit-learn's digits and small networks for them, for tests of the tool."""

import functools

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 64) float32 from 0 to 1, and the classes."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def dense(outputs: int = 10, activation: str | None = None, rescaling: float | None = None) -> keras.Sequential:
    """64 - 48 - 32 - outputs, not trained; always the same."""
    keras.utils.set_random_seed(0)
    first = [layers.Rescaling(rescaling)] if rescaling else []
    hidden = [layers.Dense(48, activation="relu", name="first"), layers.Dense(32, activation="relu", name="second")]
    return keras.Sequential([keras.Input((64,)), *first, *hidden, layers.Dense(outputs, activation, name="last")])


def train(model: keras.Model, loss, x: np.ndarray, y: np.ndarray, epochs: int = 8) -> keras.Model:
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(x, y, 32, epochs, verbose=0)
    return model
