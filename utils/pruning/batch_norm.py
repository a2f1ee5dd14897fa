"""Batch normalisation put back into a network that has lost it, so that it can be trained as the original was."""

import keras
import numpy as np

from keras_sbp.layers.batch_normalization import BatchNormalization
from keras_sbp.utils.pruning import graph


def insert_batch_norm(model, inputs):
    """A copy of a network with batch normalisation after every convolution without an activation of its own, but for
    those that are in several places.

    At test time each is the identity: its scale and offset are the deviation and the mean of what the convolution gives
    for `inputs`, and so are its statistics.

    Args:
        model: as `shrink` leaves it.
        inputs: (N, ...), some hundreds of training examples as the network reads them.
    """
    nodes = graph.nodes(model)
    places = [node.operation for node in nodes]
    convolutions = [n for n in nodes if isinstance(n.operation, keras.layers.Conv2D) and places.count(n.operation) == 1]
    linear = [node.outputs[0] for node in convolutions if node.operation.activation is keras.activations.linear]
    values = keras.tree.flatten(keras.Model(model.inputs, linear)([inputs], training=False)) if linear else []
    given = {id(tensor): np.asarray(value, np.float64) for tensor, value in zip(linear, values)}

    def after(old, new):
        if id(old) not in given:
            return new
        layer = BatchNormalization(name=f"{old._keras_history.operation.name}_norm")
        output, value = layer(new), given[id(old)]
        mean, variance = value.mean((0, 1, 2)), value.var((0, 1, 2))
        layer.set_weights([np.sqrt(variance + layer.epsilon), mean, mean, variance])
        return output

    return graph.clone(model, after=after)
