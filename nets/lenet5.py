"""LeNet5 as Caffe has it: 20 - 50 - 800 - 500, two 5x5 convolutions without padding (Table 1 of the paper)."""

import keras


def lenet5(unit=keras.layers.Identity, dense=keras.layers.Dense, conv=keras.layers.Conv2D):
    """The network, from images (batch, 28, 28, 1) in [0, 1] to logits (batch, 10): 2,293,000 multiply-adds.

    Args:
        unit: called with a name, returns the layer to put after the units of that name.
        dense, conv: keras.layers.Dense and Conv2D or classes with their arguments.
    """
    inputs = keras.Input((28, 28, 1), name="images")
    # A factor theta > 0 may as well come after max-pooling, where there is a quarter as much to multiply.
    x = conv(20, 5, activation="relu", name="conv1")(inputs)
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = unit(name="conv1_unit")(x)
    x = conv(50, 5, activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = unit(name="conv2_unit")(x)
    x = keras.layers.Flatten(name="features")(x)
    x = unit(name="features_unit")(x)
    x = dense(500, activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    # Under mixed precision, too, the logits are float32.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="lenet5")


def units(kernels):
    """Filters of both convolutions, live inputs of both dense layers, as the paper lists them.

    Args:
        kernels: {layer's name: its kernel's shape} of a network made by `shrink`; a layer that is gone is missing.
    """
    filters = [kernels.get(name, (0,))[-1] for name in ("conv1", "conv2")]
    inputs = [kernels.get(name, (0, 0))[0] for name in ("dense1", "logits")]
    return [*filters, *inputs]
