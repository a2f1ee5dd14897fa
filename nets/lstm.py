"""An LSTM for MNIST: an image as a sequence of its rows, from top to bottom."""

from collections.abc import Mapping

import keras


def lstm(width: float = 1.0) -> keras.Model:
    """The network, from images (batch, 28, 28, 1) in [0, 1] to logits (batch, 10): 2,237,696 MACs.

    Args:
        width: factor on the units of the LSTM.
    """
    inputs = keras.Input((28, 28, 1), name="images")
    x = keras.layers.Reshape((28, 28), name="rows")(inputs)
    # LiteRT has no loops.
    x = keras.layers.LSTM(max(1, round(width * 128)), unroll=True, name="lstm")(x)
    return keras.Model(inputs, keras.layers.Dense(10, dtype="float32", name="logits")(x), name="lstm")


def units(kernels: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Live units of the LSTM.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
    """
    return [kernels.get("lstm", (0, 0))[1] // 4]
