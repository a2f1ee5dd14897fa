"""Pruning by Keras's own compile and fit: insert, the callbacks, shrink, padding, saving."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sbp
from keras_sbp.utils.pruning.fit import noise_layers
from tests.support.backends import BACKEND

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
# Three classes, each a pattern under noise: so easy that few units do.
RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(3, size=512)
X = (RANDOM.normal(size=(3, 8, 8, 2))[Y] + RANDOM.normal(size=(512, 8, 8, 2))).astype("float32")


def residual():
    inputs = keras.Input(X.shape[1:])
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(inputs))
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)])
    x = keras.layers.Dense(16, "gelu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


class KLWeights(keras.callbacks.Callback):
    """The KL weight of the first noise layer in each epoch."""

    def on_train_begin(self, logs=None):
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(float(noise_layers(self.model)[0].kl_weight.value))


@pytest.fixture(scope="module")
def trained():
    """(the network, the same with noise, inserted and trained, the logs, the KL weights)."""
    keras.utils.set_random_seed(0)
    model, weights = residual(), KLWeights()
    noisy = keras_sbp.insert(model, kl_weight=5 / len(X))
    np.testing.assert_allclose(noisy.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-3, atol=1e-4)
    optimizer = keras_sbp.optimizer(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(0.2))
    noisy.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [keras_sbp.AnnealKL(), weights, keras_sbp.LogLiveUnits()]
    logs = noisy.fit(X, Y, batch_size=64, epochs=8, verbose=0, callbacks=callbacks).history
    return model, noisy, logs, weights.found


def test_training_lowers_the_loss_and_the_kl_weight_and_removes_units(trained):
    model, noisy, logs, weights = trained
    assert logs["loss"][-1] < logs["loss"][0]
    assert np.all(np.diff(weights[:5]) < 0) and weights[4:] == weights[4:5] * 4
    live = {
        layer.name: np.count_nonzero(keras.ops.convert_to_numpy(layer.multiplier())) for layer in noise_layers(noisy)
    }
    assert {name: logs[f"units/{name}"][-1] for name in live} == live
    assert 0 < logs["multiply_adds"][-1] < keras_sbp.multiply_adds(model)


def test_the_smaller_network_computes_the_same(trained):
    model, noisy, logs, _ = trained
    smaller, expected = keras_sbp.shrink(noisy), noisy.predict(X, verbose=0)
    assert keras_sbp.multiply_adds(smaller) == logs["multiply_adds"][-1]
    for other in (smaller, keras_sbp.pad_filters(smaller, 8)):
        np.testing.assert_allclose(other.predict(X, verbose=0), expected, rtol=1e-3, atol=1e-4)


def test_networks_are_saved_and_loaded(trained, tmp_path):
    noisy = trained[1]
    for model in (noisy, keras_sbp.shrink(noisy)):
        model.save(tmp_path / "network.keras")
        again = keras.models.load_model(tmp_path / "network.keras")
        np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["sbp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lenet-fc-sbp", "lenet5-sbp"))]
)
def test_a_network_saved_on_tensorflow_gives_the_same_outputs(name):
    saved = np.load(GOLDEN / f"{name}.npz")
    outputs = keras.models.load_model(GOLDEN / f"{name}.keras").predict(saved["inputs"], verbose=0)
    tolerance = 1e-5 * np.abs(saved["outputs"]).max()
    np.testing.assert_allclose(outputs, saved["outputs"], rtol=1e-4, atol=tolerance)


def test_unprunable_layers_are_listed():
    assert set(keras_sbp.unprunable(residual()).values()) == {"output of the network"}


@pytest.mark.slow
def test_prune_reaches_its_target():
    model = residual()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    smaller, _ = keras_sbp.prune(model, (X, Y), target=2, epochs=2, verbose=False)
    assert keras_sbp.multiply_adds(smaller) < 0.6 * keras_sbp.multiply_adds(model)
    assert smaller.predict(X, verbose=0).shape == (len(X), 3)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow can")
def test_litert_asks_for_tensorflow():
    with pytest.raises(ValueError, match="needs KERAS_BACKEND=tensorflow") as error:
        keras_sbp.to_litert(residual())
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.slow
def test_no_other_backend_is_imported_or_needed():
    program = """
import sys, keras
before = set(sys.modules)  # Keras and PyTorch look for JAX
import keras_sbp
for name in keras_sbp.__all__:
    getattr(keras_sbp, name)
assert not {"tensorflow", "jax", "torch"} & (set(sys.modules) - before)
sys.modules.setdefault("tensorflow")  # None: to import it is an error, unless it is the backend
model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(n) for n in (3, 2))])
keras_sbp.multiply_adds(keras_sbp.shrink(keras_sbp.insert(model)))
"""
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has no channels_first convolutions on a CPU")
@pytest.mark.slow
def test_networks_of_channels_first_layers_compute_the_same():
    inputs, common = keras.Input((2, 8, 8)), {"padding": "same", "data_format": "channels_first"}
    x = keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(8, 3, **common)(inputs))
    x = keras.layers.MaxPooling2D(**common)(keras.layers.ReLU()(x))
    x = keras.layers.Concatenate(axis=1)([x, keras.layers.Conv2D(4, 3, **common)(x)])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    noisy = keras_sbp.insert(model)
    given = X.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(noisy.predict(given, verbose=0), model.predict(given, verbose=0), rtol=1e-4, atol=1e-5)
    for layer in noise_layers(noisy):
        layer.mu.assign(np.where(np.arange(layer.mu.shape[0]) % 2, -20.0, 0.0))
        layer.log_sigma.assign(np.where(np.arange(layer.mu.shape[0]) % 2, 5.0, -4.0))
    smaller = keras_sbp.shrink(noisy)
    assert keras_sbp.multiply_adds(smaller) < keras_sbp.multiply_adds(model) / 2
    np.testing.assert_allclose(noisy.predict(given, verbose=0), smaller.predict(given, verbose=0), rtol=1e-4, atol=1e-5)
