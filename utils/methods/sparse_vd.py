"""SparseVD: sparse variational dropout, with noise on every weight (Molchanov, Ashukha, Vetrov, ICML 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from keras_sbp import layers
from keras_sbp.lazy import keras
from keras_sbp.utils import training
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods.method import PruningMethod


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseVD(PruningMethod):
    """The evidence lower bound, by Adam, with a learning rate of its own for log sigma^2."""

    noise_learning_rate: float = option(1e-4, "Learning rate of log sigma^2.", at_least=0)
    kl_warmup: float = option(
        1.0,
        "Fraction of the training in which the weight of the KL divergence grows linearly from 0 to 1. Above 1, it "
        "stops short: with 4, it ends at 1/4.",
        at_least=0,
    )

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        def rate(variable: keras.Variable) -> float:
            return self.noise_learning_rate if variable.name == "log_sigma2" else self.learning_rate

        return training.Updates(rate, self.warmup, self.decay_start)

    def objective(self, model: keras.Model) -> training.Objective:
        return dataclasses.replace(super().objective(model), kl=layers.sparse_vd.kl(self.kl_warmup))

    def live_units(self, model: keras.Model) -> Mapping[str, np.ndarray]:
        return layers.sparse_vd.live_units(model)


def initialize(model: keras.Model, original: keras.Model) -> None:
    """Give a network with noise the weights of one without, and the noise a fiftieth of their power.

    Filters are scaled to length 1. Batch normalization cancels the scale, and a learning rate and a noise then mean the
    same in every layer.

    Args:
        model: a network of `layers.sparse_vd` layers, in which the batch normalization after a convolution NAME is
            called NAME_norm.
        original: the same network without noise.
    """
    weights = {variable.path: variable for variable in original.weights}
    for variable in model.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    for layer in layers.sparse_vd.layers(model):
        if isinstance(layer, layers.sparse_vd.Conv2D):
            _normalize_filters(layer, model.get_layer(f"{layer.name}_norm"))
        power = np.mean(np.square(layer.kernel))
        layer.log_sigma2.assign(np.full(layer.kernel.shape, np.log(power / 50)))


def _normalize_filters(layer, norm):
    """Scale the filters of a convolution to length 1, and the statistics of the batch normalization after it alike."""
    length = np.linalg.norm(np.reshape(layer.kernel, (-1, layer.filters)), axis=0)
    for variable, power in ((layer.kernel, 1), (layer.bias, 1), (norm.moving_mean, 1), (norm.moving_variance, 2)):
        variable.assign(variable / length**power)


def rewind(model: keras.Model, original: keras.Model) -> None:
    """Restrict a network to the units that SparseVD has left, at the weights that training started from, in place.

    "Weight rewinding": Renda, Frankle, Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR
    2020. The weights that SparseVD leaves are few.

    Args:
        model: the trained network, with all its units.
        original: the network of `initialize`: the weights from units that are gone become 0.
    """
    from keras_sbp.utils import pruning  # imports TensorFlow

    liveness = pruning.Liveness(model, {})
    for layer in layers.ssl.kernel_layers(original):
        live = liveness.kept_units(model.get_layer(layer.name).input)
        layer.kernel.assign(layer.kernel * np.isin(np.arange(layer.kernel.shape[-2]), live)[:, None])
