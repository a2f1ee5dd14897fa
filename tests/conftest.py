"""Settings of all tests."""

import hypothesis

# The same examples each time: a test that passed passes again.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")
