"""Training with noise by Keras's compile and fit: the optimizer, the annealed KL weight, what the logs show."""

import keras
import numpy as np

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils.pruning import counting, graph
from keras_sbp.utils.pruning.liveness import Liveness


def optimizer(weights: keras.optimizers.Optimizer, noise: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """One optimizer for a network's weights and one for mu and log sigma of its noise: for `model.compile`.

    The noise usually takes a learning rate 10 to 100 times that of the weights.
    """
    of_noise = {r"(.*/)?(mu|log_sigma)": noise}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(weights, of_noise))


def noise_layers(model: keras.Model) -> list[SBP]:
    """The layers of noise of a model, and of the models nested in it."""
    nested = [noise_layers(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    return sum(nested, [layer for layer in model.layers if isinstance(layer, SBP)])


class LogLiveUnits(keras.callbacks.Callback):
    """Adds to an epoch's logs, which the progress bar, TensorBoard and History show, the state of the noise.

    units/NAME: live units of each noise layer; kl_divergence: of all units, in nats; multiply_adds: of the network with
    its live units only.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        layers = noise_layers(self.model)
        multipliers = {layer.name: np.asarray(layer.multiplier()) for layer in layers}
        logs |= {f"units/{name}": int(np.count_nonzero(units)) for name, units in multipliers.items()}
        logs["kl_divergence"] = float(sum(np.sum(layer.kl_divergence()) for layer in layers))
        logs["multiply_adds"] = Liveness(graph.flatten_nested(self.model), multipliers).multiply_adds()


class AnnealKL(keras.callbacks.Callback):
    """Anneals each noise layer's KL weight: it starts scaled by what the layer's units cost and ends as inserted.

    The scale is 1 + price * cost at the start, and falls linearly to 1 over the first half of the epochs of `fit`. A
    unit's cost is the multiply-adds that removing it saves, relative to the mean over all units of the network.

    Args:
        price: how much the cost of an average unit adds to its scale at the start.
    Raises:
        ValueError: when training begins, there is no noise, or it was inserted with a kl_weight of 0.
    """

    def __init__(self, price: float = 4.0):
        super().__init__()
        self.price = price

    def on_train_begin(self, logs: dict | None = None) -> None:
        layers = noise_layers(self.model)
        if not layers:
            raise ValueError(f"{self.model.name} has no noise layer: train the model that insert returned")
        for layer in layers:
            if not layer.initial_kl_weight:
                raise ValueError(
                    f"{layer.name} has a kl_weight of 0: insert it with kl_weight=1 / N, N training examples"
                )
        self._costs = counting.relative_costs(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        remaining = max(1 - 2 * epoch / self.params["epochs"], 0.0)
        for layer in noise_layers(self.model):
            layer.kl_weight.assign(layer.initial_kl_weight * (1 + remaining * self.price * self._costs[layer.name]))
