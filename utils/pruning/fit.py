"""Training with noise by Keras's compile and fit: the optimizer, the annealed KL weight, the logs."""

import warnings

import keras
import numpy as np

from keras_sbp.layers import sbp
from keras_sbp.layers.noise_optimizer import NoiseOptimizerMap
from keras_sbp.utils.pruning import counting, graph, rules
from keras_sbp.utils.pruning.liveness import Liveness


def optimizer(weights: keras.optimizers.Optimizer, noise: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """One optimizer for a network's weights and one for mu and log sigma of its SBP layers: for `model.compile`.

    The noise usually takes a learning rate 10 to 100 times that of the weights.
    """
    return keras.optimizers.MultiOptimizer(NoiseOptimizerMap(weights, {"noise": noise}))


def noise_layers(model: keras.Model) -> list[keras.Layer]:
    """The noise layers of a model and of the models nested in it: those with a method `multiplier()`."""
    nested = [noise_layers(layer) for layer in model.layers if isinstance(layer, keras.Model)]
    return sum(nested, [layer for layer in model.layers if rules.is_noise(layer)])


def _check_names(model: keras.Model, layers: list[keras.Layer]) -> None:
    """Refuse noise that cannot be found by its name where nested models and layers are opened.

    Raises:
        ValueError: it is in a layer of somebody's own class, or several have the same name.
    """
    flat, names = graph.flatten_nested(model), {layer.name for layer in layers}
    found = {node.operation.name for node in graph.nodes(flat) if rules.is_noise(node.operation)}
    if found != names or len(names) != len(set(map(id, layers))):
        raise ValueError(
            f"{model.name} has noise in layers of your own or of the same name ({', '.join(sorted(found))}): put each "
            "into a model under a name of its own, or let insert add it"
        )


class LogLiveUnits(keras.callbacks.Callback):
    """Adds to the logs of each epoch, which History and the callbacks after this one show, such as TensorBoard:

    - units/NAME: the number of live units of each noise layer;
    - kl_divergence: of all units, in nats;
    - multiply_adds: MACs of the network with its live units only.

    Raises:
        ValueError: when training begins, there is noise in a layer of somebody's own, or several have the same name.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        _check_names(self.model, noise_layers(self.model))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        layers = noise_layers(self.model)
        found = sbp.multipliers(layers)
        multipliers = {layer.name: keras.ops.convert_to_numpy(theta) for layer, theta in found.items()}
        logs |= {f"units/{name}": int(np.count_nonzero(units)) for name, units in multipliers.items()}
        logs["kl_divergence"] = float(sum(keras.ops.convert_to_numpy(layer.kl_divergence()).sum() for layer in layers))
        logs["multiply_adds"] = Liveness(graph.flatten_nested(self.model), multipliers).multiply_adds()


class AnnealKL(keras.callbacks.Callback):
    """Anneals each noise layer's KL weight: it starts scaled by what the layer's units cost and ends as inserted.

    The scale is 1 + price * cost at the start, and falls linearly to 1 over the first half of the epochs of `fit`. A
    unit's cost is the MACs that removing it saves, relative to the mean over all units of the network.

    Args:
        price: how much the cost of an average unit adds to its scale at the start.
    Raises:
        ValueError: when training begins, there is no noise, it was inserted with a kl_weight of 0, it is in a layer of
            somebody's own, or several have the same name.
    """

    def __init__(self, price: float = 4.0):
        super().__init__()
        self.price = price

    def on_train_begin(self, logs: dict | None = None) -> None:
        layers = noise_layers(self.model)
        if not layers:
            raise ValueError(f"{self.model.name} has no noise layer: train the model that insert returned")
        for layer in layers:
            if not getattr(layer, "initial_kl_weight", 0.0):
                raise ValueError(
                    f"{layer.name} has a kl_weight of 0: insert it with kl_weight=1 / N, N training examples"
                )
        _check_names(self.model, layers)
        self._costs = counting.relative_costs(self.model)
        if self.params["epochs"] == 1:
            warnings.warn("AnnealKL anneals over the epochs of one fit, and this fit has one epoch", stacklevel=2)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        remaining = max(1 - 2 * epoch / self.params["epochs"], 0.0)
        for layer in noise_layers(self.model):
            layer.kl_weight.assign(layer.initial_kl_weight * (1 + remaining * self.price * self._costs[layer.name]))

    def on_train_end(self, logs: dict | None = None) -> None:
        for layer in noise_layers(self.model):
            layer.kl_weight.assign(layer.initial_kl_weight)
