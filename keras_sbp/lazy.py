"""Keras, TensorFlow and our own modules, imported when first used.

TensorFlow takes seconds to import, and a script's `--help` needs none of it.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any


def attach(
    package: str, names: Mapping[str, str] | None = None, submodules: Collection[str] = ()
) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) that imports its names when they are first used.

    Args:
        package: its `__name__`.
        names: {public name: the module in the package that defines it}.
        submodules: the package's public modules.
    """

    def get(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if names is None or name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    return get


class _Module:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


if TYPE_CHECKING:
    import keras
    import tensorflow as tf
else:
    keras, tf = _Module("keras"), _Module("tensorflow")
