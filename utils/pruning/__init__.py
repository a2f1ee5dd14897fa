"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller."""

from keras_sbp.utils.pruning.batch_norm import insert_batch_norm
from keras_sbp.utils.pruning.insert import insert, unprunable
from keras_sbp.utils.pruning.liveness import Liveness
from keras_sbp.utils.pruning.pad import copy_unpadded_weights, pad_filters
from keras_sbp.utils.pruning.rebuild import remove_units, shrink

__all__ = [
    "Liveness",
    "pad_filters",
    "insert",
    "insert_batch_norm",
    "shrink",
    "unprunable",
    "remove_units",
    "copy_unpadded_weights",
]
