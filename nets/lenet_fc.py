"""Lenet-fc: 784 - 500 - 300 - 10, fully connected (Table 1 of the paper)."""

import keras


def lenet_fc(unit=keras.layers.Identity, dense=keras.layers.Dense):
    """The network, from images (batch, 28, 28, 1) in [0, 1] to logits (batch, 10): 545,000 multiply-adds.

    Args:
        unit: called with a name, returns the layer to put after the units of that name.
        dense: keras.layers.Dense or a class with its arguments.
    """
    inputs = keras.Input((28, 28, 1), name="images")
    x = keras.layers.Flatten(name="pixels")(inputs)
    x = unit(name="pixels_unit")(x)
    x = dense(500, activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    x = dense(300, activation="relu", name="dense2")(x)
    x = unit(name="dense2_unit")(x)
    # Under mixed precision, too, the logits are float32.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="lenet_fc")


def units(kernels):
    """Live inputs, live neurons of both hidden layers and the outputs, as the paper lists them.

    Args:
        kernels: {layer's name: its kernel's shape} of a network made by `shrink`; a layer that is gone is missing.
    """
    inputs = [kernels.get(name, (0, 0))[0] for name in ("dense1", "dense2", "logits")]
    return [*inputs, 10]
