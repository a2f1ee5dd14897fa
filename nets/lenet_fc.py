"""Lenet-fc: 784 - 500 - 300 - 10, fully connected (Table 1 of the paper)."""

from collections.abc import Callable, Mapping

import keras


def lenet_fc(
    unit: Callable[..., keras.layers.Layer] = keras.layers.Identity,
    dense: Callable[..., keras.layers.Layer] = keras.layers.Dense,
    width: float = 1.0,
) -> keras.Model:
    """The network, from images (batch, 28, 28, 1) in [0, 1] to logits (batch, 10): 545,000 MACs.

    Args:
        unit: called with a name, returns the layer that follows the units of that name.
        dense: keras.layers.Dense, or a class with the same arguments.
        width: factor k on the width of every hidden layer.
    """
    inputs = keras.Input((28, 28, 1), name="images")
    x = keras.layers.Flatten(name="pixels")(inputs)
    x = unit(name="pixels_unit")(x)
    x = dense(max(1, round(width * 500)), activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    x = dense(max(1, round(width * 300)), activation="relu", name="dense2")(x)
    x = unit(name="dense2_unit")(x)
    # The logits are float32 also under mixed precision.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="lenet_fc")


def units(kernels: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Live inputs, live neurons of both hidden layers, and the outputs, as the paper lists them.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
    """
    inputs = [kernels.get(name, (0, 0))[0] for name in ("dense1", "dense2", "logits")]
    return [*inputs, 10]
