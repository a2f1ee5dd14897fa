"""VGG-like: 13 convolutions with batch normalization in five blocks, then 512 - 512 - 10 (Table 2 of the paper).

In the authors' code, the noise theta multiplies the weighted sums of a convolution, before bias and normalization, so a
removed filter still adds a constant. Here theta multiplies a unit's final value, after ReLU and pooling: a removed unit
is exactly 0. Theirs also normalizes the first dense layer.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_sbp.layers.batch_normalization import BatchNormalization

# Filters of the convolutions of each block; a block ends in pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
NEURONS = 512
CONVOLUTIONS = sum(map(len, BLOCKS))

# Rates of the Original's binary dropout.
DROPOUT = {"conv1_unit": 0.3, "features_unit": 0.5, "dense1_unit": 0.5} | {
    f"conv{i}_unit": 0.4 for i in (3, 5, 6, 8, 9, 11, 12)
}


def vgglike(
    unit: Callable[..., keras.layers.Layer] = keras.layers.Identity,
    dense: Callable[..., keras.layers.Layer] = keras.layers.Dense,
    conv: Callable[..., keras.layers.Layer] = keras.layers.Conv2D,
    norm: Callable[..., keras.layers.Layer] = BatchNormalization,
    width: float = 1.0,
    counts: Sequence[int] | None = None,
) -> keras.Model:
    """The network, from standardized images (batch, 32, 32, 3) to logits (batch, 10): 313,463,808 MACs.

    Args:
        unit: called with a name, returns the layer that follows the units of that name.
        dense, conv: keras.layers.Dense and Conv2D, or classes with the same arguments.
        norm: called with a name, returns the layer that follows a convolution. keras.layers.Identity for weights of a
            network that `shrink` made, which has batch normalization folded into the convolutions.
        width: k in the paper: scales the units of every layer.
        counts: the units of a pruned network, in the order of `units`, instead of `width`.
    """
    counts = counts or [round(width * count) for count in (*sum(BLOCKS, ()), NEURONS)]
    x = inputs = keras.Input((32, 32, 3), name="images")
    number = 0
    for block, filters in enumerate(BLOCKS, 1):
        for position in range(1, len(filters) + 1):
            x = conv(counts[number], 3, padding="same", name=f"conv{number + 1}")(x)
            number += 1
            x = norm(name=f"conv{number}_norm")(x)
            x = keras.layers.ReLU(name=f"conv{number}_relu")(x)
            if position == len(filters):
                x = keras.layers.MaxPooling2D(name=f"pool{block}")(x)
            x = unit(name=f"conv{number}_unit")(x)
    x = keras.layers.Flatten(name="features")(x)
    # A second layer of noise on the same values, as in the authors' code.
    x = unit(name="features_unit")(x)
    x = dense(counts[number], activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    # The logits are float32 also under mixed precision.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="vgglike")


def start_as_identity(model: keras.Model) -> None:
    """Initialize the first filters of every convolution, one per input, as the identity, in place.

    So the images reach deep layers from the start. The other filters stay random: Zagoruyko and Komodakis, DiracNets,
    2017; Jordan, 94 % on CIFAR-10 in 3.29 Seconds, 2024.
    """
    for number in range(1, CONVOLUTIONS + 1):
        kernel = model.get_layer(f"conv{number}").kernel
        initial = kernel.numpy()
        first = np.arange(min(kernel.shape[2:]))
        initial[..., first] = 0
        initial[1, 1, first, first] = 1
        kernel.assign(initial)


def units(kernels: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Filters of the 13 convolutions and neurons of the first dense layer, as the paper lists them.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
    """
    return [kernels.get(name, (0,))[-1] for name in [*(f"conv{i + 1}" for i in range(CONVOLUTIONS)), "dense1"]]
