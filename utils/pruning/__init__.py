"""Pruning: noise in any network, and the smaller network without the units that the noise has made dead."""

from keras_sbp.utils.pruning import rules
from keras_sbp.utils.pruning.batch_norm import insert_batch_norm
from keras_sbp.utils.pruning.insert import insert, unprunable
from keras_sbp.utils.pruning.liveness import Liveness
from keras_sbp.utils.pruning.pad import copy_unpadded_weights, pad_filters
from keras_sbp.utils.pruning.rebuild import remove_units, shrink

__all__ = [
    "Liveness",
    "copy_unpadded_weights",
    "insert",
    "insert_batch_norm",
    "pad_filters",
    "remove_units",
    "rules",
    "shrink",
    "unprunable",
]
