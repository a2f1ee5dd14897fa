"""Parametrized tests of which some cases take long."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(names: Iterable[Any], slow: Collection[Any]) -> list:
    """The cases of a parametrized test; `make test` leaves out those that are slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else []) for name in names]
