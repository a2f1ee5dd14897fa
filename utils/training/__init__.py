"""Training a network by the evidence lower bound."""

from keras_sbp.utils.training.batches import Batches
from keras_sbp.utils.training.loop import train
from keras_sbp.utils.training.objective import Objective
from keras_sbp.utils.training.shrinking import define_shrinking_flag
from keras_sbp.utils.training.state import network
from keras_sbp.utils.training.step import Step
from keras_sbp.utils.training.updates import Updates

__all__ = ["Batches", "Objective", "Step", "Updates", "define_shrinking_flag", "network", "train"]
