"""LeNet5, the Caffe variant: 20 - 50 - 800 - 500, two 5x5 convolutions without padding (Table 1 of the paper)."""

from collections.abc import Callable, Mapping

import keras


def lenet5(
    unit: Callable[..., keras.layers.Layer] = keras.layers.Identity,
    dense: Callable[..., keras.layers.Layer] = keras.layers.Dense,
    conv: Callable[..., keras.layers.Layer] = keras.layers.Conv2D,
    width: float = 1.0,
) -> keras.Model:
    """The network, from images (batch, 28, 28, 1) in [0, 1] to logits (batch, 10): 2,293,000 MACs.

    Args:
        unit: called with a name, returns the layer that follows the units of that name.
        dense, conv: keras.layers.Dense and Conv2D, or classes with the same arguments.
        width: factor k on the width of every layer.
    """
    inputs = keras.Input((28, 28, 1), name="images")
    # A factor theta > 0 commutes with max-pooling, after which there is a quarter as much to multiply.
    x = conv(max(1, round(width * 20)), 5, activation="relu", name="conv1")(inputs)
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    x = unit(name="conv1_unit")(x)
    x = conv(max(1, round(width * 50)), 5, activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(name="pool2")(x)
    x = unit(name="conv2_unit")(x)
    x = keras.layers.Flatten(name="features")(x)
    x = unit(name="features_unit")(x)
    x = dense(max(1, round(width * 500)), activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    # The logits are float32 also under mixed precision.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="lenet5")


def units(kernels: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Filters of both convolutions and live inputs of both dense layers, as the paper lists them.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
    """
    filters = [kernels.get(name, (0,))[-1] for name in ("conv1", "conv2")]
    inputs = [kernels.get(name, (0, 0))[0] for name in ("dense1", "logits")]
    return [*filters, *inputs]
