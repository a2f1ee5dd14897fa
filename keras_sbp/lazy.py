"""Keras, TensorFlow and modules of ours, imported when something in them is first used.

TensorFlow takes seconds to import, and a script's `--help` needs none of it.
"""

import importlib
import types
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any


def attach(
    package: str, names: Mapping[str, str] = types.MappingProxyType({}), submodules: Collection[str] = ()
) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) that imports what is in it when it is first used.

    Args:
        package: its `__name__`.
        names: {public name: the module in the package that defines it}.
        submodules: the package's public modules.
    """

    def get(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name not in names:
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
