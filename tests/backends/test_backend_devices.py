"""fit on several devices: the same steps as on one, with one theta for all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backends import BACKEND

ROOT = Path(__file__).parents[2]
# A step's loss is the mean over the devices' parts of a batch: with another theta on one of them it would be another.
PROGRAM = """
import keras, numpy as np
from keras_sbp.layers.sbp import SBP

def trained():
    keras.utils.set_random_seed(0)
    noise = SBP(kl_weight=0.01, log_sigma=-1.0, seed=3)
    layers = [keras.layers.Dense(5, "relu"), noise, keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = [model.fit(x, x[:, :2], batch_size=8, verbose=0).history["loss"][0] for _ in range(4)]
    return losses, model.get_weights(), noise.mu.value

def check(one, several):
    assert len(set(one[0])) == 4, one[0]
    for ours, theirs in zip(one[:2], several[:2]):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)

x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
"""
ON = {
    "jax": """
one = trained()
keras.distribution.set_distribution(keras.distribution.DataParallel())
several = trained()
assert len(several[2].sharding.device_set) == 4
check(one, several)
""",
    "tensorflow": """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
one, strategy = trained(), tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(4)])
with strategy.scope():
    several = trained()
assert len(strategy.experimental_local_results(several[2])) == 4
check(one, several)
""",
}


@pytest.mark.slow
@pytest.mark.skipif(BACKEND not in ON, reason="Keras trains on one device there")
def test_fit_on_four_devices_takes_the_steps_that_it_takes_on_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, **flags}
    command = [sys.executable, "-c", PROGRAM + ON[BACKEND]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
