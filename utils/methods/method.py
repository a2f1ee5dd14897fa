"""What every method has: its hyperparameters, and what they mean for a step of training."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from keras_sbp.lazy import keras
from keras_sbp.utils import training
from keras_sbp.utils.io.options import check, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """The hyperparameters of a method, as frozen fields; `experiment.flags` turns each into a flag."""

    learning_rate: float = option(1e-3, "Learning rate of the weights.", at_least=0)
    warmup: float = option(
        0.0, "Fraction of the training in which the learning rates rise linearly from 0.", at_least=0, at_most=1
    )
    decay_start: float = option(
        0.5, "Fraction of the training after which the learning rates fall linearly to 0.", at_least=0, at_most=1
    )
    weight_decay: float = option(
        0.0, "L2 decay: half of it times the sum of the squared kernels is added to the loss of each image.", at_least=0
    )
    label_smoothing: float = option(
        0.0, "Fraction of each label that is spread evenly over all classes.", at_least=0, at_most=1
    )
    # Every N epochs, dead units are removed; 0: never while it trains.
    shrink_every: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check(self)

    @abc.abstractmethod
    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        """How a step changes the weights.

        Args:
            num_examples: of the training set. The loss is a sum over it: Adam's steps do not depend on a factor of the
                loss, SGD's learning rate has to be divided by it.
        """

    def objective(self, model: keras.Model) -> training.Objective:
        """What a step minimizes.

        Args:
            model: the network with all its units.
        """
        return training.Objective(weight_decay=self.weight_decay, label_smoothing=self.label_smoothing)

    def live_units(self, model: keras.Model) -> Mapping[str, np.ndarray]:
        """{layer's name: (units,) bool, which are live}, for progress and summaries."""
        return training.shrinking.live_units(model)

    def after_epoch(self, model: keras.Model) -> None:
        """Change weights at the end of an epoch, where no step can."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningMethod(Method):
    """A method that lets units die."""

    shrink_every: int = option(
        0,
        "Every N epochs, remove units for good: those that were dead at the end of N epochs in a row, or that have no "
        "nonzero weight left, if they are a tenth of the MACs. 0: remove all at the end.",
        at_least=0,
    )
