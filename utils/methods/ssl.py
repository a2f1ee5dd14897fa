"""SSL: structured sparsity learning, a group lasso by proximal steps (Wen et al., NIPS 2016)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from keras_sbp import layers
from keras_sbp.lazy import keras
from keras_sbp.utils import training
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods.method import PruningMethod


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSL(PruningMethod):
    """SGD, with a proximal step of the group lasso after each of its steps."""

    strength: float = option(1.5e-5, "Strength of the group lasso, in nats per image.", at_least=0)
    conv_strengths: tuple[float, ...] = option((), "Strength on each convolution, instead of --strength.")

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        convolutions = [
            layer.name for layer in layers.ssl.kernel_layers(model) if isinstance(layer, keras.layers.Conv2D)
        ]
        given = self.conv_strengths
        if given and len(given) != len(convolutions) or not all(0 <= strength < math.inf for strength in given):
            raise UserError(
                f"conv_strengths={','.join(map(str, given))} is not one number >= 0 for each of {len(convolutions)} "
                f"convolutions: {', '.join(convolutions) or 'leave it out'}"
            )
        strengths = dict(zip(convolutions, given))
        return training.Updates(
            lambda variable: self.learning_rate / num_examples,
            self.warmup,
            self.decay_start,
            optimizer=layers.ssl.sgd,
            proximal=layers.ssl.proximal_step(lambda layer: num_examples * strengths.get(layer.name, self.strength)),
        )

    def live_units(self, model: keras.Model) -> Mapping[str, np.ndarray]:
        return layers.ssl.live_units(model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalizedSSL(PruningMethod):
    """For a network with batch normalization: Nesterov momentum, and a proximal step on the rows after each epoch.

    See `layers.ssl.shrink_rows`.
    """

    lasso: float = option(
        0.012, "What a row loses per epoch: a fraction of its layer's mean row length.", at_least=0, at_most=0.99
    )

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        rate = self.learning_rate / num_examples
        return training.Updates(lambda variable: rate, self.warmup, self.decay_start, training.updates.nesterov)

    def live_units(self, model: keras.Model) -> Mapping[str, np.ndarray]:
        return layers.ssl.used_inputs(model)

    def after_epoch(self, model: keras.Model) -> None:
        layers.ssl.shrink_rows(model, self.lasso)
