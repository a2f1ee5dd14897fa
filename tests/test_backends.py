"""Most tests of tests/backends on JAX, and networks saved on other backends. `make test-backends` runs all on each.

Keras reads its backend when it is imported, so that each has a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sbp  # noqa: F401  so that Keras knows its layer

ROOT = Path(__file__).parents[1]
SAVE = """
import sys, keras, numpy as np
import keras_sbp
model = keras.Sequential([keras.Input((5,)), *(keras.layers.Dense(n, "relu") for n in (6, 4, 3))])
noisy = keras_sbp.insert(model, 0.1)
noisy.layers[2].log_sigma.assign([-5, -3, -1, 1, 3, 5])
noisy.save(sys.argv[1])
np.save(sys.argv[2], noisy.predict(np.eye(5), verbose=0))
"""


def run(backend, *command):
    if keras.backend.backend() != "tensorflow" or not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_on_jax():
    run("jax", sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "not slow", "tests/backends")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_network_saved_on_another_backend_gives_the_same_outputs_on_tensorflow(backend, tmp_path):
    run(backend, sys.executable, "-c", SAVE, str(tmp_path / "noisy.keras"), str(tmp_path / "outputs.npy"))
    noisy = keras.models.load_model(tmp_path / "noisy.keras")
    np.testing.assert_allclose(noisy.predict(np.eye(5), verbose=0), np.load(tmp_path / "outputs.npy"), rtol=1e-5)
