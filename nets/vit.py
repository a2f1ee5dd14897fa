"""A small vision transformer for CIFAR-10, whose patches are made by convolutions, as in compact transformers.

Hassani et al.: "Escaping the Big Data Paradigm with Compact Transformers", arXiv 2104.05704.
"""

from collections.abc import Mapping

import keras

BLOCKS, HEADS, HEAD_DIM, MLP = 3, 4, 16, 256
STEM, SIDE = 32, 8


def vit(width: float = 1.0) -> keras.Model:
    """The network, from standardized images (batch, 32, 32, 3) to logits (batch, 10): 12,411,520 MACs.

    Args:
        width: factor on the width of the stream, of the convolution before it and of the MLPs, and on the heads.
    """

    def scaled(count):
        return max(1, round(width * count))

    heads = scaled(HEADS)
    stream = heads * HEAD_DIM
    inputs = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Conv2D(scaled(STEM), 3, 2, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.Conv2D(stream, 3, 2, padding="same", name="patches")(x)
    x = keras.layers.Reshape((SIDE * SIDE, stream), name="tokens")(x)
    for block in range(1, BLOCKS + 1):
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_attention_norm")(x)
        y = keras.layers.MultiHeadAttention(heads, HEAD_DIM, name=f"block{block}_attention")(y, y)
        x = keras.layers.Add(name=f"block{block}_attention_add")([x, y])
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"block{block}_mlp_norm")(x)
        y = keras.layers.Dense(scaled(MLP), activation="gelu", name=f"block{block}_mlp1")(y)
        y = keras.layers.Dense(stream, name=f"block{block}_mlp2")(y)
        x = keras.layers.Add(name=f"block{block}_mlp_add")([x, y])
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = keras.layers.GlobalAveragePooling1D(name="features")(x)
    # The logits are float32 also under mixed precision.
    return keras.Model(inputs, keras.layers.Dense(10, dtype="float32", name="logits")(x), name="vit")


def units(kernels: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Filters of the first convolution and units of the stream; of each block its heads, the dimensions of each head's
    queries and values, and the neurons of its MLP.

    Args:
        kernels: {layer's name: shape of its kernel} of a network that `shrink` made; layers that are gone are missing.
    """
    found = [kernels.get(name, (0,))[-1] for name in ("conv", "patches")]
    for block in range(1, BLOCKS + 1):
        _, heads, query = kernels.get(f"block{block}_attention/query", (0, 0, 0))
        value = kernels.get(f"block{block}_attention/value", (0,))[-1]
        found += [heads, query, value, kernels.get(f"block{block}_mlp1", (0,))[-1]]
    return found
