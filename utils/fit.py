"""Noise under Keras's compile and fit: its own learning rate, its KL divergence over the epochs, what lives so far."""

import keras
import numpy as np

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import cost, pruning
from keras_sbp.utils.pruning import graph


def optimizer(weights, noise):
    """One optimiser for a network's weights and one for its noise, mu and log sigma: for `model.compile`.

    Args:
        weights, noise: Keras optimisers. The noise's rate may be ten to a hundred times the weights'.
    """
    of_noise = {r"(.*/)?(mu|log_sigma)": noise}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(weights, of_noise))


def noises(model):
    """The layers of noise of a model, and of the models in it."""
    inside = [noises(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    return sum(inside, [layer for layer in model.layers if isinstance(layer, SBP)])


class Living(keras.callbacks.Callback):
    """Puts into an epoch's logs, which the progress bar, TensorBoard and History show, what the noise has come to.

    units/NAME: how many units live, for each layer of noise; kl_divergence: of all units, in nats; multiply_adds: of
    the network with the living units only.
    """

    def on_epoch_end(self, epoch, logs=None):
        layers = noises(self.model)
        multipliers = {layer.name: np.asarray(layer.multiplier()) for layer in layers}
        logs |= {f"units/{name}": int(np.count_nonzero(units)) for name, units in multipliers.items()}
        logs["kl_divergence"] = float(sum(np.sum(layer.kl_divergence()) for layer in layers))
        logs["multiply_adds"] = pruning.Living(graph.opened(self.model), multipliers).multiply_adds()


def by_cost(model, kl_weight, epochs, price=4.0):
    """A callback that begins with the KL divergence of a unit scaled by what the unit costs, and ends without.

    The scale is 1 + price * cost, where the cost is the multiply-adds that go when the unit goes, relative to the mean
    of all units.

    Args:
        model: the network with noise, all of its units alive.
        kl_weight: of `SBP`, what the scale comes to on a line over half of the training.
        epochs: of the training.
        price: what the cost of an average unit adds to its scale at the start.
    Returns:
        A `KLWeight`.
    """
    costs = cost.relative_costs(model)

    def weight(epoch, layer):
        left = max(1 - 2 * epoch / epochs, 0.0)
        return kl_weight * (1 + left * price * costs[layer.name])

    return KLWeight(weight)


class KLWeight(keras.callbacks.Callback):
    """Sets `kl_weight` of the layers of noise as an epoch begins: to anneal it, or to scale it by what a unit costs.

    Args:
        weight: from an epoch, 0 for the first, and a layer to its `kl_weight`.
    Raises:
        ValueError: as an epoch begins, a layer was made with a kl_weight of 0.
    """

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def on_epoch_begin(self, epoch, logs=None):
        for layer in noises(self.model):
            if not layer.initial_kl_weight:
                raise ValueError(f"{layer.name} has a kl_weight of 0, which does not change: insert it with 1 / N")
            layer.kl_weight.assign(self.weight(epoch, layer))
