"""The Original: the network that the methods prune, trained without any of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from keras_sbp.lazy import keras
from keras_sbp.utils import training
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Original(Method):
    """Adam on cross entropy and weight decay."""

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        return training.Updates(lambda variable: self.learning_rate, self.warmup, self.decay_start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalizedOriginal(Method):
    """A network with batch normalization: by SGD with Nesterov momentum, its kernels by Muon, or all of it by Adam.

    Batch normalization cancels the biases of the convolutions before it. They are not trained; they are there since
    `shrink` folds batch normalization into them.
    """

    optimizer: str = option("muon", "Of the weights; muon: of the convolutions' kernels, the rest by nesterov.",
                            choices=("adam", "muon", "nesterov"))  # fmt: skip
    kernel_learning_rate: float = option(0.1, "With --optimizer=muon: Muon's learning rate.", at_least=0)
    growing_decay: bool = option(False, "Let the weight decay grow linearly from a thousandth, as the authors' code.")

    def objective(self, model: keras.Model) -> training.Objective:
        return dataclasses.replace(super().objective(model), growing_decay=self.growing_decay)

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        normalized = {layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
        if self.optimizer == "muon" and not self.kernel_learning_rate:
            raise UserError("kernel_learning_rate=0 trains no convolution: give a rate, or optimizer=nesterov")
        learning_rate = self.learning_rate if self.optimizer == "adam" else self.learning_rate / num_examples

        def rate(variable: keras.Variable) -> float:
            if variable.name == "bias" and variable.path.split("/")[0] in normalized:
                return 0.0
            return self.kernel_learning_rate if self.optimizer == "muon" and len(variable.shape) == 4 else learning_rate

        muon = functools.partial(training.updates.muon, compute_dtype=model.compute_dtype)
        optimizer = {"adam": training.updates.adam, "muon": muon, "nesterov": training.updates.nesterov}[self.optimizer]
        return training.Updates(rate, self.warmup, self.decay_start, optimizer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGGOriginal(NormalizedOriginal):
    """VGG-like's, with binary dropout, or with convolutions that start as the identity."""

    identity_initialization: bool = option(
        False, "Initialize convolutions as the identity, so that images pass through."
    )
    dropout: float = option(
        0.0, "Scales the rates of binary dropout; 1: the paper's, 0: none.", at_least=0, at_most=1.9
    )

    def dropout_layer(self, name: str, rates: Mapping[str, float]) -> keras.layers.Layer:
        """Binary dropout after the units of that name, at a rate of `rates`; where it has none, the identity."""
        rate = self.dropout * rates.get(name, 0.0)
        return keras.layers.Dropout(rate, name=name) if rate else keras.layers.Identity(name=name)
