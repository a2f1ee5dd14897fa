"""The rule of batch normalization."""

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.layers.batch_normalization import BatchNormalization
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Rebuilder, is_training
from keras_sbp.utils.pruning.rules.unitwise import Unitwise

# A constraint is not meant for a kernel with theta or batch normalization in it.
UNCONSTRAINED = dict.fromkeys(f"{name}_constraint" for name in ("kernel", "bias", "depthwise", "pointwise", "gamma"))


class BatchNorm(Unitwise):
    """Batch normalization: for inference it becomes part of the layer before it, if nothing else reads that layer."""

    kinds = (layers.BatchNormalization, BatchNormalization)

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        return "called with training=True" if is_training(node) else super().obstacle(node)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        (live,), op = inputs, self.op
        if build.folded_norm(self.node.input_tensors[0]):
            return inputs
        if not build.inference or not op.scale or build.is_shared(op) or not live.scale.all():
            live = build.apply_scale(live, op)
        layer = build.clone(self, **UNCONSTRAINED) if build.inference else build.clone(self)
        (tensor,) = keras_private.call(self.node, layer, [live.tensor])
        build.set_weights(layer, op, [live.units] * len(op.weights))
        if build.inference and (live.scale != 1).any():
            # gamma (s x - mean) / deviation is that of x, with gamma s and mean / s in it.
            layer.gamma.assign(np.asarray(op.gamma)[live.units] * live.scale)
            layer.moving_mean.assign(np.asarray(op.moving_mean)[live.units] / live.scale)
        return [build.live(tensor, live.units)]


def scale_and_shift(norm: keras.Layer) -> tuple[Array, Array]:
    """What batch normalization multiplies each unit by at inference, and then adds to it, (units,)."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    scale = (np.asarray(norm.gamma) if norm.scale else 1.0) / deviation
    return scale, (np.asarray(norm.beta) if norm.center else 0.0) - np.asarray(norm.moving_mean) * scale
