"""Training a network by the evidence lower bound."""

from typing import TYPE_CHECKING

from keras_sbp import lazy

if TYPE_CHECKING:
    from keras_sbp.utils.training import shrinking, updates
    from keras_sbp.utils.training.batches import Batches
    from keras_sbp.utils.training.loop import train
    from keras_sbp.utils.training.objective import Objective
    from keras_sbp.utils.training.state import load_network
    from keras_sbp.utils.training.step import Step
    from keras_sbp.utils.training.updates import Updates

_MODULES = {
    "Batches": "batches",
    "Objective": "objective",
    "Step": "step",
    "Updates": "updates",
    "load_network": "state",
    "train": "loop",
}
__all__ = ["Batches", "Objective", "Step", "Updates", "load_network", "shrinking", "train", "updates"]

__getattr__ = lazy.attach(__name__, _MODULES, submodules=("shrinking", "updates"))
