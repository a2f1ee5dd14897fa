"""From the trained network with noise to smaller ones: one to train further, and the final one."""

from typing import Any

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import fit, graph
from keras_sbp.utils.tool import targets
from keras_sbp.utils.tool.targets import Masks


class Fixed(keras.layers.Layer):
    """Multiplies each unit by a number that is not trained: what is left of a noise layer when the noise is off."""

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
    smaller, origin = pruning.remove_units(noisy, {name: ~mask for name, mask in alive.items()})
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
            # A larger network of the same training takes removed units back: as they were before, theta is 1.
            multiplier = keras.ops.convert_to_numpy(old.multiplier())
            factor = (np.where(targets.is_removed(old), 1, multiplier) * alive[old.name])[index]
            fixed[id(layer)] = Fixed(len(factor), name=layer.name, dtype=layer.dtype_policy)
            fixed[id(layer)].build(tensors[0].shape)
            fixed[id(layer)].set_weights([factor])
        return [fixed[id(layer)](tensors[0])]

    return graph.clone(smaller, without_noise)
