"""Most tests of tests/backends on JAX, and networks that it saved. `make test-backends` runs all, on PyTorch, too.

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

ROOT = Path(__file__).parents[1]
JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
SAVE = """
import sys, keras, numpy as np
import keras_sbp
model = keras.Sequential([keras.Input((5,)), *(keras.layers.Dense(n, "relu") for n in (6, 4, 3))])
noisy = keras_sbp.insert(model, 0.1)
noisy.layers[2].log_sigma.assign([-5, -3, -1, 1, 3, 5])
noisy.save(sys.argv[1])
np.save(sys.argv[2], noisy.predict(np.eye(5), verbose=0))
"""
with_jax = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not importlib.util.find_spec("jax"), reason="JAX is not installed"
)


def run(*command):
    done = subprocess.run(command, cwd=ROOT, env=os.environ | JAX, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@with_jax
def test_on_jax():
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "not slow", "tests/backends")


@with_jax
def test_a_network_saved_on_jax_gives_the_same_outputs_on_tensorflow(tmp_path):
    run(sys.executable, "-c", SAVE, str(tmp_path / "noisy.keras"), str(tmp_path / "outputs.npy"))
    noisy = keras.models.load_model(tmp_path / "noisy.keras")
    np.testing.assert_allclose(noisy.predict(np.eye(5), verbose=0), np.load(tmp_path / "outputs.npy"), rtol=1e-5)
