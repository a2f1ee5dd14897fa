"""Settings of all tests."""

import hypothesis
import keras
import pytest

# The same examples each time: a test that passed passes again.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


@pytest.fixture(autouse=True)
def seeded():
    """The same weights and noise, too."""
    keras.utils.set_random_seed(0)
