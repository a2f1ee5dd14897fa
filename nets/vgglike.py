"""VGG-like: 13 convolutions with batch normalisation in five blocks, then 512 - 512 - 10 (Table 2 of the paper).

Theta is a unit's noise. In the authors' code it multiplies a convolution's weighted sums, before bias and
normalisation, so a removed filter still adds a constant. Here theta multiplies a unit's last value, after ReLU and
pooling: a removed unit is exactly 0. Theirs normalises the first dense layer as well.
"""

import keras
import numpy as np

from keras_sbp.layers.batch_normalization import BatchNormalization

# Filters of the convolutions, a tuple a block; a block ends in pooling.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
NEURONS = 512
CONVOLUTIONS = sum(map(len, BLOCKS))

# The Original's binary dropout: the share of a unit's values that is dropped.
DROPOUT = {"conv1_unit": 0.3, "features_unit": 0.5, "dense1_unit": 0.5} | {
    f"conv{i}_unit": 0.4 for i in (3, 5, 6, 8, 9, 11, 12)
}


def vgglike(
    unit=keras.layers.Identity,
    dense=keras.layers.Dense,
    conv=keras.layers.Conv2D,
    norm=BatchNormalization,
    width=1.0,
    counts=None,
):
    """The network, from standardised images (batch, 32, 32, 3) to logits (batch, 10): 313,463,808 multiply-adds.

    Args:
        unit: called with a name, returns the layer to put after the units of that name.
        dense, conv: keras.layers.Dense and Conv2D or classes with their arguments.
        norm: called with a name, returns the layer after a convolution. keras.layers.Identity where the weights come
            from a network made by `shrink`, in which batch normalisation is part of the convolutions.
        width: k of the paper, which scales the units of every layer.
        counts: the units of a pruned network instead, in the order of `units`.
    """
    counts = counts or [round(width * count) for count in (*sum(BLOCKS, ()), NEURONS)]
    x = inputs = keras.Input((32, 32, 3), name="images")
    number = 0
    for block, filters in enumerate(BLOCKS, 1):
        for place in range(1, len(filters) + 1):
            x = conv(counts[number], 3, padding="same", name=f"conv{number + 1}")(x)
            number += 1
            x = norm(name=f"conv{number}_norm")(x)
            x = keras.layers.ReLU(name=f"conv{number}_relu")(x)
            if place == len(filters):
                x = keras.layers.MaxPooling2D(name=f"pool{block}")(x)
            x = unit(name=f"conv{number}_unit")(x)
    x = keras.layers.Flatten(name="features")(x)
    # A second noise of the same values, as in the authors' code.
    x = unit(name="features_unit")(x)
    x = dense(counts[number], activation="relu", name="dense1")(x)
    x = unit(name="dense1_unit")(x)
    # Under mixed precision, too, the logits are float32.
    return keras.Model(inputs, dense(10, dtype="float32", name="logits")(x), name="vgglike")


def start_as_identity(model):
    """Let every convolution start by passing its inputs on, so that depth hides nothing of the images.

    As many of the first filters as there are inputs are the identity, the others stay random: Zagoruyko and Komodakis,
    DiracNets, 2017; Jordan, 94 % on CIFAR-10 in 3.29 seconds, 2024.
    """
    for number in range(1, CONVOLUTIONS + 1):
        kernel = model.get_layer(f"conv{number}").kernel
        start = kernel.numpy()
        same = np.arange(min(kernel.shape[2:]))
        start[..., same] = 0
        start[1, 1, same, same] = 1
        kernel.assign(start)


def units(kernels):
    """Filters of the 13 convolutions and neurons of the first dense layer, as the paper lists them.

    Args:
        kernels: {layer's name: its kernel's shape} of a network made by `shrink`; a layer that is gone is missing.
    """
    return [kernels.get(name, (0,))[-1] for name in [*(f"conv{i + 1}" for i in range(CONVOLUTIONS)), "dense1"]]
