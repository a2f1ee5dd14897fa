"""Training a network by the evidence lower bound."""

from utils.training.batches import Batches
from utils.training.loop import train
from utils.training.objective import Objective
from utils.training.shrinking import define_shrinking_flag
from utils.training.state import network
from utils.training.step import Step
from utils.training.updates import Updates

__all__ = ["Batches", "Objective", "Step", "Updates", "define_shrinking_flag", "network", "train"]
