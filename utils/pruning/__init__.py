"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller."""

from keras_sbp.utils.pruning.fill import filled, take_over
from keras_sbp.utils.pruning.insert import insert, staying
from keras_sbp.utils.pruning.living import Living
from keras_sbp.utils.pruning.normalise import normalised
from keras_sbp.utils.pruning.rebuild import shrink, take_out

__all__ = ["Living", "filled", "insert", "normalised", "shrink", "staying", "take_out", "take_over"]
