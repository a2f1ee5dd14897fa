"""Garbage, collected seldom."""

import gc


def collect_seldom():
    """Collecting garbage takes a seventh of the tests' time, mostly to look through the imported modules again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
