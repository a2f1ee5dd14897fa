"""From the trained network with noise to smaller ones: one to train further, and the final one."""

from typing import Any

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import fit, graph, rebuild
from keras_sbp.utils.tool import targets
from keras_sbp.utils.tool.targets import Masks

# Parameters of noise that is one number, exp(mu), and of noise of a unit that is dead.
CERTAIN_LOG_SIGMA, DEAD_MU, DEAD_LOG_SIGMA = -20.0, -20.0, 5.0


class Fixed(keras.layers.Layer):
    """Multiplies each unit by a number that is not trained: what is left of a noise layer when the noise is off.

    `kept`: which units of the noise layer these are. Units that do not vary are gone, too.
    """

    def __init__(self, units: int, **settings: Any):
        super().__init__(**settings)
        self.units = units
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.factor = self.add_weight(name="factor", shape=(self.units,), trainable=False)

    def call(self, inputs: Any) -> Any:
        return inputs * keras.ops.cast(self.factor, inputs.dtype)

    def multiplier(self) -> np.ndarray:
        return np.asarray(self.factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def trainable(noisy: keras.Model, alive: Masks) -> keras.Model:
    """The network without the units that are not alive and without noise, to be trained further.

    Its layers are those of the network as given, only smaller: Rescaling, batch normalization and dropout are still
    there. `pruning.shrink` folds them into the weights: a first convolution that has Rescaling(1 / 255) in it would
    read values up to 255 through weights a few thousandths large, which an optimizer's usual steps would wreck.
    """
    smaller, origin = _removed(noisy, alive)
    kept = {}
    for variable, old, index, offset in origin:
        variable.assign(np.asarray(old)[index] + offset)
        if old.path.endswith("/mu"):
            kept[id(variable)] = old.path, index
    fixed = {}
    old_noise = {layer.mu.path: layer for layer in fit.noise_layers(noisy)}

    def without_noise(node, tensors):
        layer = node.operation
        if not hasattr(layer, "mu") or id(layer.mu) not in kept:
            return None
        if id(layer) not in fixed:
            path, index = kept[id(layer.mu)]
            old = old_noise[path]
            factor = (_theta(old) * alive[old.name])[index]
            fixed[id(layer)] = Fixed(len(factor), name=layer.name, dtype=layer.dtype_policy)
            fixed[id(layer)].build(tensors[0].shape)
            fixed[id(layer)].set_weights([factor])
            fixed[id(layer)].kept = index
        return [fixed[id(layer)](tensors[0])]

    return graph.clone(smaller, without_noise)


def shrink(noisy: keras.Model, alive: Masks, trained: keras.Model | None = None) -> keras.Model:
    """The network without the units that are not alive, of stock layers, as `pruning.shrink` makes it.

    Args:
        trained: that of `trainable` for these units, trained further: its weights are put back into the network with
            noise first. Shrunk by itself, it would keep layer normalizations at their old width.
    """
    whole = graph.clone(noisy)
    if trained:
        smaller, origin = _removed(noisy, alive)
        new = _same_weights(smaller, trained)
        into = _same_weights(noisy, whole)
        noise = {id(weight) for layer in fit.noise_layers(noisy) for weight in layer.weights}
        for variable, old, index, offset in origin:
            if id(old) not in noise:
                value = np.array(keras.ops.convert_to_numpy(into[id(old)]))
                value[index] = keras.ops.convert_to_numpy(new[id(variable)]) - offset
                into[id(old)].assign(value)
    for layer, old in zip(fit.noise_layers(whole), fit.noise_layers(noisy), strict=True):
        units = alive[old.name]
        layer.threshold = 1.0
        layer.mu.assign(np.where(units, np.log(np.clip(_theta(old) / old.scale, 1e-9, 1)), DEAD_MU))
        layer.log_sigma.assign(np.where(units, CERTAIN_LOG_SIGMA, DEAD_LOG_SIGMA))
    return pruning.shrink(whole)


def _removed(noisy: keras.Model, alive: Masks) -> tuple[keras.Model, rebuild.Origin]:
    return pruning.remove_units(noisy, {name: ~mask for name, mask in alive.items()})


def _same_weights(model: keras.Model, other: keras.Model) -> dict[int, keras.Variable]:
    """{id of a weight of a model: the other's}, in layers of the same names and classes."""
    found = {}
    for layer in model.layers:
        same = next((each for each in other.layers if each.name == layer.name), None)
        if type(same) is type(layer):
            found |= {id(one): two for one, two in zip(layer.weights, same.weights, strict=True)}
    return found


def _theta(layer: keras.Layer) -> np.ndarray:
    """What a noise layer multiplies its units by: (units,)."""
    # A larger network of the same training takes removed units back, as they were.
    removed = targets.is_removed(layer)
    return np.where(removed, layer.scale * targets.e_theta(layer), keras.ops.convert_to_numpy(layer.multiplier()))
