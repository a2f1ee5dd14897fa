"""What result.json says of a run's network."""

import platform
import shlex
import sys
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.utils.io import report
from keras_sbp.utils.pruning import counting


def measure(
    original: keras.Model,
    network: keras.Model,
    units: Callable[[Mapping[str, tuple[int, ...]]], list[int]],
) -> report.Result:
    """Units and MACs of a network, and how many times fewer MACs than the original's.

    Args:
        units: as in `nets.Network`.
    """
    macs = counting.multiply_adds(network)
    return {
        "units": units(counting.kernels(network)),
        "multiply_adds": macs,
        "flops_speedup": counting.multiply_adds(original) / macs if macs else None,
    }


def provenance() -> report.Result:
    """The command that makes the result, and the versions that it was made with."""
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}
    return {
        "command": shlex.join(["python", *sys.argv]),
        "versions": {"python": platform.python_version(), **versions},
    }
