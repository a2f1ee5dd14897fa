"""Residual networks for CIFAR-10 (He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016).

Three stages of blocks of two 3x3 convolutions with batch normalization: three blocks each for ResNet-20, nine for
ResNet-56. At the start of the second and third stage, the shortcut is a 1x1 convolution (their option B).
"""

from collections.abc import Callable, Mapping, Sequence

import keras

from keras_sbp.layers.batch_normalization import BatchNormalization

FILTERS = (16, 32, 64)


def resnet(
    blocks: int,
    unit: Callable[..., keras.layers.Layer] = keras.layers.Identity,
    norm: Callable[..., keras.layers.Layer] = BatchNormalization,
    width: float = 1.0,
    counts: Sequence[int] | None = None,
) -> keras.Model:
    """The network of 6 * blocks + 2 layers, from standardized images (batch, 32, 32, 3) to logits (batch, 10).

    Args:
        blocks: of each stage.
        unit: called with a name, returns the layer that follows the units of that name. The summands of a stage's
            residual stream share their units, so one layer multiplies each of them.
        norm: called with a name, returns the layer that follows a convolution. keras.layers.Identity for weights of a
            network that `shrink` made, which has batch normalization folded into the convolutions.
        width: scales the filters of every stage.
        counts: the units of a pruned network, in the order of `units`, instead of `width`.
    """
    dense = [filters for filters in FILTERS for _ in range(1 + blocks)]
    counts = iter(counts or [max(1, round(width * filters)) for filters in dense])

    def convolution(x, filters, size, strides, name):
        x = keras.layers.Conv2D(filters, size, strides, padding="same", name=name)(x)
        return norm(name=f"{name}_norm")(x)

    x = inputs = keras.Input((32, 32, 3), name="images")
    for stage in range(1, len(FILTERS) + 1):
        filters, stream = next(counts), unit(name=f"stage{stage}_unit")
        if stage == 1:
            x = keras.layers.ReLU(name="conv_relu")(convolution(x, filters, 3, 1, "conv"))
            x = stream(x)
        for block in range(1, blocks + 1):
            name, strides = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = keras.layers.ReLU(name=f"{name}_conv1_relu")(convolution(x, next(counts), 3, strides, f"{name}_conv1"))
            y = unit(name=f"{name}_unit")(y)
            y = stream(convolution(y, filters, 3, 1, f"{name}_conv2"))
            if strides > 1:
                x = stream(convolution(x, filters, 1, strides, f"{name}_shortcut"))
            x = keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, y]))
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    # The logits are float32 also under mixed precision.
    x = keras.layers.Dense(10, dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name=f"resnet{6 * blocks + 2}")


def units(kernels: Mapping[str, tuple[int, ...]], blocks: int) -> list[int]:
    """Filters of each stage's residual stream and of the first convolution of each of its blocks.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
        blocks: of each stage.
    """
    found = []
    for stage in range(1, len(FILTERS) + 1):
        names = [f"stage{stage}_block{block}" for block in range(1, blocks + 1)]
        stream = ["conv"] if stage == 1 else [f"{names[0]}_shortcut"]
        streams = [kernels.get(name, (0,))[-1] for name in [*stream, *(f"{name}_conv2" for name in names)]]
        found += [max(streams), *(kernels.get(f"{name}_conv1", (0,))[-1] for name in names)]
    return found
