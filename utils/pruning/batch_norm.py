"""Batch normalization back in a network that has lost it, so that it trains as the original did."""

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.layers.batch_normalization import BatchNormalization
from keras_sbp.utils.pruning import graph


def insert_batch_norm(model: keras.Model, inputs: np.ndarray) -> keras.Model:
    """A copy of a network with batch normalization after every convolution that has no activation of its own and is
    called once.

    At inference each is the identity: its scale and offset are the standard deviation and the mean of the convolution's
    outputs for `inputs`, and so are its statistics.

    Args:
        model: as `shrink` returns it.
        inputs: (N, ...), some hundreds of training examples, as the network reads them.
    """
    graph.check_class(model)
    nodes = graph.nodes(model)
    calls = [node.operation for node in nodes]
    convolutions = [n for n in nodes if isinstance(n.operation, keras.layers.Conv2D) and calls.count(n.operation) == 1]
    linear = [node.outputs[0] for node in convolutions if node.operation.activation is keras.activations.linear]
    values = keras.tree.flatten(keras.Model(model.inputs, linear)([inputs], training=False)) if linear else []
    outputs = {
        id(tensor): keras.ops.convert_to_numpy(value).astype(np.float64) for tensor, value in zip(linear, values)
    }

    def normalized(old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        if id(old) not in outputs:
            return new
        layer = BatchNormalization(name=f"{keras_private.producer(old).operation.name}_norm")
        output, value = layer(new), outputs[id(old)]
        mean, variance = value.mean((0, 1, 2)), value.var((0, 1, 2))
        layer.set_weights([np.sqrt(variance + layer.epsilon), mean, mean, variance])
        return output

    return graph.clone(model, wrap=normalized)
