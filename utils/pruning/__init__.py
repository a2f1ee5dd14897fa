"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller."""

from utils.pruning.fill import filled, take_over
from utils.pruning.insert import insert, staying
from utils.pruning.living import Living
from utils.pruning.normalise import normalised
from utils.pruning.rebuild import shrink, take_out

__all__ = ["Living", "filled", "insert", "normalised", "shrink", "staying", "take_out", "take_over"]
