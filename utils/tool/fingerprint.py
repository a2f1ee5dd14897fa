"""Telling losses of one name apart: by what they compute with."""

import functools
import hashlib
import inspect
import types
from typing import Any

import keras
import numpy as np

# Their functions are as their names say.
LIBRARIES = ("keras.", "tensorflow.", "jax.", "torch.", "numpy.")
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def of(loss: Any) -> str:
    """A digest of a loss's code, and of the numbers, arrays and functions that it reads; the same in every process."""
    return hashlib.sha256(repr(_parts(loss, loss, [])).encode()).hexdigest()[:12]


def _parts(value: Any, loss: Any, opened: list[Any]) -> Any:
    """What a value is made of, without addresses in memory.

    Args:
        loss: what all this is about. Of objects that are no losses only the class counts: they may change.
        opened: what this value is in, as functions may read each other.
    """
    if isinstance(value, PLAIN):
        return value
    if any(value is each for each in opened):
        return "itself"

    def parts(*values):
        return [_parts(each, loss, [*opened, value]) for each in values]

    if isinstance(value, (list, tuple)):
        return parts(*value)
    if isinstance(value, dict):
        return sorted((str(key), repr(*parts(each))) for key, each in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, parts(*value)))
    if isinstance(value, (np.ndarray, np.generic, keras.Variable)) or keras.ops.is_tensor(value):
        array = keras.ops.convert_to_numpy(value)
        return [array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, functools.partial):
        return parts(value.func, value.args, value.keywords)
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), value.co_names, *parts(*value.co_consts)]
    if isinstance(value, types.MethodType):
        return parts(value.__func__)
    if isinstance(value, types.FunctionType):
        if (value.__module__ or "").startswith(LIBRARIES):
            return f"{value.__module__}.{value.__qualname__}"
        read = inspect.getclosurevars(value)
        return parts(value.__code__, value.__defaults__, value.__kwdefaults__, read.nonlocals, read.globals)
    if isinstance(value, keras.Layer):  # such as a teacher
        return parts(type(value), *value.get_weights())
    if hasattr(value, "__wrapped__"):  # such as tf.function makes
        return parts(value.__wrapped__)
    named = (value if isinstance(value, type) else type(value)).__qualname__
    if value is not loss and not isinstance(value, keras.losses.Loss):
        return named
    # Keras numbers the names that it gives.
    settings = {key: each for key, each in vars(value).items() if key != "name"}
    return [named, *parts(type(value).__call__, getattr(type(value), "call", None), settings)]
