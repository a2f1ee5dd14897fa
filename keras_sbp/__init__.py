"""Structured Bayesian Pruning for Keras: log-normal noise finds the units that a network can do without.

    smaller, report = keras_sbp.prune(model, (x, y), target=3)

or, step by step:

    noisy = keras_sbp.insert(model, kl_weight=1 / num_examples)
    noisy.compile(keras_sbp.optimizer(Adam(1e-3), Adam(5e-2)), loss)
    noisy.fit(x, y, callbacks=[keras_sbp.AnnealKL()])
    smaller = keras_sbp.shrink(noisy)

K. Neklyudov, D. Molchanov, A. Ashukha, D. Vetrov: "Structured Bayesian Pruning via Log-Normal Multiplicative Noise",
NIPS 2017.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING

from keras_sbp import lazy

if TYPE_CHECKING:
    from keras_sbp.layers import truncated_log_normal
    from keras_sbp.layers.sbp import SBP
    from keras_sbp.utils.deployment.runtimes import to_litert
    from keras_sbp.utils.pruning import insert, pad_filters, shrink, unprunable
    from keras_sbp.utils.pruning.counting import multiply_adds
    from keras_sbp.utils.pruning.fit import AnnealKL, LogLiveUnits, optimizer
    from keras_sbp.utils.tool.checkpoint import Checkpoint
    from keras_sbp.utils.tool.prune import prune
    from keras_sbp.utils.tool.tradeoff import tradeoff

__version__ = "1.0.0"

# {public name: its module}, imported when the name is first used: TensorFlow takes seconds, and `--help` needs none.
_MODULES = {
    "AnnealKL": "utils.pruning.fit",
    "Checkpoint": "utils.tool.checkpoint",
    "LogLiveUnits": "utils.pruning.fit",
    "SBP": "layers.sbp",
    "insert": "utils.pruning",
    "multiply_adds": "utils.pruning.counting",
    "optimizer": "utils.pruning.fit",
    "pad_filters": "utils.pruning",
    "prune": "utils.tool.prune",
    "shrink": "utils.pruning",
    "to_litert": "utils.deployment.runtimes",
    "tradeoff": "utils.tool.tradeoff",
    "truncated_log_normal": "layers",
    "unprunable": "utils.pruning",
}
__all__ = [
    "AnnealKL",
    "Checkpoint",
    "LogLiveUnits",
    "SBP",
    "__version__",
    "insert",
    "multiply_adds",
    "optimizer",
    "pad_filters",
    "prune",
    "shrink",
    "to_litert",
    "tradeoff",
    "truncated_log_normal",
    "unprunable",
]


__getattr__ = lazy.attach(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__


def _register() -> None:
    """Make known to Keras what files of networks with noise may hold."""
    for name in ("sbp", "inner_noise", "noise_optimizer"):
        importlib.import_module(f"keras_sbp.layers.{name}")


class _RegisterWithKeras(importlib.abc.MetaPathFinder):
    """Registers our classes once Keras can be used, for `keras.models.load_model`.

    Keras imports TensorFlow, or TensorFlow Keras: it can be used when the outer one of these imports is done.
    """

    def __init__(self):
        self.under_way = 0

    def find_spec(self, name, path, target=None):
        if name not in ("keras", "tensorflow"):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        if spec is None:  # not installed
            return None
        run = spec.loader.exec_module

        def run_and_register(module):
            self.under_way += 1
            try:
                run(module)
            finally:
                self.under_way -= 1
            if not self.under_way and "keras" in sys.modules:
                _register()

        spec.loader.exec_module = run_and_register
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterWithKeras())
