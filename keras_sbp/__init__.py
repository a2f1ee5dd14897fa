"""Structured Bayesian Pruning for Keras: log-normal noise finds the units that a network can do without.

    noisy = keras_sbp.insert(model, kl_weight=1 / num_examples)
    noisy.compile(keras_sbp.optimizer(Adam(1e-3), Adam(5e-2)), loss)
    noisy.fit(x, y, callbacks=[keras_sbp.AnnealKL()])
    smaller = keras_sbp.shrink(noisy)

K. Neklyudov, D. Molchanov, A. Ashukha, D. Vetrov: "Structured Bayesian Pruning via Log-Normal Multiplicative Noise",
NIPS 2017.
"""

from keras_sbp.layers import truncated_log_normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.deployment.runtimes import to_litert
from keras_sbp.utils.pruning import insert, pad_filters, shrink, unprunable
from keras_sbp.utils.pruning.counting import multiply_adds
from keras_sbp.utils.pruning.fit import AnnealKL, LogLiveUnits, optimizer
from keras_sbp.utils.tool.checkpoint import Checkpoint
from keras_sbp.utils.tool.prune import prune

__version__ = "1.0.0"

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
    "truncated_log_normal",
    "unprunable",
]
