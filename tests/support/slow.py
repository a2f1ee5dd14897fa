"""Parametrized tests of which some cases take long."""

from collections.abc import Collection, Iterable

import pytest


def cases(names: Iterable[str], slow: Collection[str]) -> list:
    """The cases of a parametrized test; `make test` leaves out those that are slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else []) for name in names]
