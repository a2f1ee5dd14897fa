"""Taking dead units out: from a network with noise or zeros in it to one that is really smaller."""

from utils.pruning.insert import insert
from utils.pruning.living import Living
from utils.pruning.rebuild import shrink, take_out

__all__ = ["Living", "insert", "shrink", "take_out"]
