"""Training a network by the evidence lower bound."""

from keras_sbp.utils.training.batches import Batches
from keras_sbp.utils.training.loop import train
from keras_sbp.utils.training.objective import Objective
from keras_sbp.utils.training.state import load_network
from keras_sbp.utils.training.step import Step
from keras_sbp.utils.training.updates import Updates

__all__ = ["Batches", "Objective", "Step", "Updates", "load_network", "train"]
