"""StructuredBP: the paper's method, with its KL divergence annealed from a larger weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_sbp import layers
from keras_sbp.lazy import keras, tf
from keras_sbp.utils import training
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods.method import PruningMethod


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructuredBP(PruningMethod):
    """The evidence lower bound, by Adam, with a learning rate of its own for mu and log sigma.

    A unit's KL divergence is scaled by its layer's `kl_scale` * (1 + price * cost), where its cost is the MACs saved by
    removing it, relative to the mean of all units. The scale changes linearly over the first half of the training, from
    that of `initial_kl_scale` and `price` to that of `kl_scale` and `final_price`. The paper's bound is the scale 1;
    its StructuredBPa has a `kl_scale` for each layer, and our StructuredBPc a `final_price`.
    """

    noise_learning_rate: float = option(2e-2, "Learning rate of mu and log sigma.", at_least=0)
    kl_scale: tuple[float, ...] = option(
        (1.0,), "Factor on the KL divergence: one number, or one for each noise layer."
    )
    initial_kl_scale: tuple[float, ...] = option(
        (), "What --kl_scale starts from; it changes linearly over the first half of the training. Empty: --kl_scale."
    )
    price: float = option(
        0.0,
        "At the start, the KL divergence of a unit is also multiplied by 1 + price * cost: the MACs saved by removing "
        "the unit, relative to the mean of all units.",
        at_least=0,
    )
    final_price: float = option(0.0, "The price from the middle of the training on.", at_least=0)
    log_sigma: float = option(-5.0, "Initial log sigma.", at_least=-20, at_most=5)
    criterion: str = option(
        "snr",
        "Which units are removed. snr: those whose signal-to-noise ratio is at most --threshold. evidence: those that "
        "raise the evidence by a factor of at most e (BMRS).",
        choices=("snr", "evidence"),
    )
    threshold: float = option(1.0, "Units whose signal-to-noise ratio is at most this are removed.", at_least=0)
    fixed_mu: bool = option(False, "Keep mu at 0 and learn log sigma alone.")

    def unit(self, name: str) -> layers.sbp.SBP:
        """The layer of noise after the units of that name."""
        return layers.sbp.SBP(threshold=self.threshold, criterion=self.criterion, log_sigma=self.log_sigma, name=name)

    def rate(self, variable: keras.Variable) -> float:
        """The learning rate of a variable."""
        if variable.name == "mu" and self.fixed_mu:
            return 0.0
        return self.noise_learning_rate if variable.name in ("mu", "log_sigma") else self.learning_rate

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        return training.Updates(self.rate, self.warmup, self.decay_start)

    def objective(self, model: keras.Model) -> training.Objective:
        return dataclasses.replace(super().objective(model), kl=self.kl(model))

    def kl(self, model: keras.Model) -> Callable[[keras.Model, tf.Tensor], tf.Tensor]:
        """The scaled KL divergence of all units in nats, as `training.Objective` takes it.

        Args:
            model: the network with all its units, on which their cost is counted. In training it may have fewer.
        Raises:
            UserError: `kl_scale` or `initial_kl_scale` has neither one number nor one for each noise layer.
        """
        from keras_sbp.utils.pruning import counting  # imports TensorFlow

        costs = counting.relative_costs(model)
        end = self._scales("kl_scale", self.kl_scale, self.final_price, costs)
        start = self._scales("initial_kl_scale", self.initial_kl_scale or self.kl_scale, self.price, costs)

        def scaled_kl(model: keras.Model, progress: tf.Tensor) -> tf.Tensor:
            noise = [layer for layer in model.layers if layer.name in end]
            fraction = tf.minimum(2 * progress, 1.0)
            scales = [(1 - fraction) * start[layer.name] + fraction * end[layer.name] for layer in noise]
            scale = tf.concat([tf.fill(layer.mu.shape, scale) for layer, scale in zip(noise, scales)], 0)
            return tf.reduce_sum(scale * layers.truncated_log_normal.kl_divergence(*layers.sbp.parameters(noise)))

        return scaled_kl

    @staticmethod
    def _scales(name: str, factors: Sequence[float], price: float, costs: Mapping[str, float]) -> dict[str, float]:
        """{noise layer's name: what its units' KL divergence is multiplied by}."""
        factors = np.array(factors, float)
        if factors.shape not in ((1,), (len(costs),)) or not np.isfinite(factors).all() or (factors < 0).any():
            given = ",".join(f"{factor:g}" for factor in factors)
            raise UserError(
                f"--{name}={given} has neither one number >= 0 nor one for each of {len(costs)} noise layers: "
                f"{', '.join(costs)}"
            )
        return dict(zip(costs, (factors * (1 + price * np.array([*costs.values()], float))).tolist()))
