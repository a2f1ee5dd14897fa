"""Settings of all tests."""

import os

import hypothesis
import pytest

from tests.support import garbage

# What TensorFlow logs while it is imported would stand in the midst of the tests' output.
stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
    import keras
finally:
    os.dup2(stderr, 2)
    os.close(stderr)
    os.close(nowhere)

garbage.collect_seldom()

# The same examples each time: a test that passed passes again.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


@pytest.fixture(autouse=True)
def seeded():
    """The same weights and noise, too."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def no_latency(monkeypatch):
    """`prune` without a conversion to LiteRT and a second's timing at its end."""
    monkeypatch.setattr("keras_sbp.utils.tool.latency.milliseconds", lambda models, x: [1.0] * len(models))
