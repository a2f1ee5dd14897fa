"""Every family of keras.applications, and networks of other kinds, with noise inserted and dead units removed.

    python -m tests.stress.keras_applications --graphs 300

For each network, with random weights and statistics: how much its outputs change when noise is inserted; then, with 0,
10, 50, 90 and 100 % of the units dead, how much the smaller network's outputs differ from those of the network with its
units masked, relative to their scale, and the fraction of the MACs that is left.
"""

import argparse
import functools
import os
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from tqdm import tqdm

from keras_sbp.layers.sbp import SBP
from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.pruning import counting

FRACTIONS = (0.0, 0.1, 0.5, 0.9, 1.0)
TOLERANCE = 1e-4
# One of each family, with images as small as it allows.
APPLICATIONS = {
    "ConvNeXtTiny": 64, "DenseNet121": 64, "EfficientNetB0": 64, "EfficientNetV2B0": 64, "InceptionResNetV2": 96,
    "InceptionV3": 96, "MobileNet": 64, "MobileNetV2": 64, "MobileNetV3Small": 64, "NASNetMobile": 64, "ResNet50": 64,
    "ResNet50V2": 64, "VGG16": 64, "Xception": 96,
}  # fmt: skip


def application(name):
    size = APPLICATIONS[name]
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classifier_activation=None)


def u_net(size=32):
    def block(x, filters):
        return L.ReLU()(L.BatchNormalization()(L.Conv2D(filters, 3, padding="same")(x)))

    inputs = keras.Input((size, size, 3))
    first = block(inputs, 8)
    second = block(L.MaxPooling2D()(first), 16)
    x = block(L.MaxPooling2D()(second), 24)
    x = block(L.Concatenate()([L.Conv2DTranspose(16, 2, strides=2)(x), second]), 16)
    x = block(L.Concatenate()([L.UpSampling2D()(x), first]), 8)
    return keras.Model(inputs, L.Conv2D(2, 1, activation="sigmoid")(x))


def squeeze_and_excitation():
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        y = L.Conv2D(12, 3, padding="same", activation="relu")(x)
        gate = L.Dense(6, activation="relu")(L.GlobalAveragePooling2D()(y))
        gate = L.Reshape((1, 1, 12))(L.Dense(12, activation="sigmoid")(gate))
        x = L.Add()([x, L.Multiply()([y, gate])])
    return keras.Model(inputs, L.Dense(5)(L.GlobalMaxPooling2D()(x)))


def text_classifier():
    inputs = keras.Input((None,), dtype="int32")
    x = L.Conv1D(24, 3, activation="relu", padding="causal")(L.Embedding(50, 16)(inputs))
    x = L.GlobalMaxPooling1D()(L.Conv1D(20, 3, activation="relu")(x))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(L.Dense(10, activation="relu")(x)))


def two_inputs_two_outputs():
    images, features = keras.Input((16, 16, 1), name="images"), keras.Input((7,), name="features")
    x = L.SeparableConv2D(10, 3, activation="relu", depth_multiplier=2)(images)
    x = L.Dense(12, activation="relu")(L.Flatten()(L.MaxPooling2D()(x)))
    y = L.Dense(9, activation="tanh")(features)
    z = L.Dense(11, activation="relu")(L.Concatenate()([x, y]))
    difference = L.Subtract()([L.Dense(6)(z), L.Dense(6)(y)])
    return keras.Model([images, features], [L.Dense(4, name="one")(z), L.Dense(2, name="two")(difference)])


def transformer():
    inputs = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 16)(inputs)
    x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 8)(x, x)]))
    y = L.Dense(16)(L.Dropout(0.1)(L.Dense(32, activation="gelu")(x)))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.LayerNormalization()(x + y))))


def recurrent():
    inputs = keras.Input((12, 5))
    x = L.LSTM(8, return_sequences=True)(L.Dense(16, activation="relu")(inputs))
    return keras.Model(inputs, L.Dense(3)(L.Dense(10, activation="relu")(L.GRU(6)(x))))


def nested():
    inner = [L.Conv2D(8, 3, padding="same", activation="relu"), L.BatchNormalization()]
    inner = keras.Sequential([keras.Input((16, 16, 8)), *inner], name="block")
    inputs = keras.Input((16, 16, 3))
    x = inner(L.Conv2D(8, 3, padding="same", activation="relu")(inputs))
    x = L.ReLU()(L.Add()([x, inner(x)]))
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(L.Conv2D(6, 3)(x))))


def three_dimensions():
    inputs = keras.Input((8, 8, 8, 2))
    x = L.MaxPooling3D()(L.Conv3D(6, 3, activation="relu", padding="same")(inputs))
    x = L.Flatten()(L.Conv3D(5, 2, activation="relu")(x))
    return keras.Model(inputs, L.Dense(4)(L.Dense(9, activation="relu")(x)))


def groups():
    inputs = keras.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 1)(inputs)))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, groups=4, padding="same", use_bias=False)(x)))
    x = L.PReLU()(L.Conv2D(8, 1)(L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)))
    x = L.Cropping2D()(L.LeakyReLU()(L.ZeroPadding2D()(x)))
    return keras.Model(inputs, L.Dense(4)(L.Flatten()(L.Conv2D(6, 3, activation="swish")(x))))


def pre_activation(size=16):
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization()(x)))
        x = L.Add()([x, L.Conv2D(8, 3, padding="same")(L.ReLU()(L.BatchNormalization()(y)))])
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.BatchNormalization()(x)))
    return keras.Model(inputs, L.Dense(4)(x))


def random_graph(rng):
    """A network of random layers with rules, with forks, sums, products and concatenations."""

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    def convolution(x, filters):
        size, padding = int(rng.integers(1, 4)), pick("same", "same", "valid") if x.shape[1] > 6 else "same"
        common = {"padding": padding, "use_bias": bool(rng.integers(2)), "activation": pick(None, "relu", "tanh")}
        kind = pick("conv", "conv", "separable", "transposed", "groups")
        if kind == "separable":
            return L.SeparableConv2D(filters, size, depth_multiplier=int(rng.integers(1, 3)), **common)(x)
        if kind == "transposed":
            return L.Conv2DTranspose(filters, size, **common)(x)
        groups = 2 if kind == "groups" and x.shape[-1] % 2 == 0 and filters % 2 == 0 else 1
        return L.Conv2D(filters, size, groups=groups, dilation_rate=pick(1, 1, 2), **common)(x)

    def unitwise(x):
        for _ in range(rng.integers(4)):
            x = pick(
                L.BatchNormalization, L.ReLU, L.LeakyReLU, L.PReLU, L.Identity, lambda: L.Activation("sigmoid"),
                lambda: L.Activation("swish"), lambda: L.Dropout(0.5), lambda: L.DepthwiseConv2D(3, padding="same"),
                lambda: L.Rescaling(pick(2.0, -1.0), pick(0.0, 0.5)), lambda: L.ZeroPadding2D(1), L.UpSampling2D,
                lambda: L.MaxPooling2D(2, padding="same"), lambda: L.AveragePooling2D(2, padding="same"),
                lambda: L.Permute((2, 1, 3)), lambda: L.SpatialDropout2D(0.5), L.LayerNormalization,
                L.RMSNormalization, lambda: L.GroupNormalization(2),
            )()(x)  # fmt: skip
            x = x if x.shape[1] <= 16 else L.MaxPooling2D()(x)
        return x

    def same_size(x, y):
        side = min(x.shape[1], y.shape[1])
        return [L.Cropping2D(((0, z.shape[1] - side), (0, z.shape[2] - side)))(z) for z in (x, y)]

    def sequence(x):
        """Attention or a recurrent layer along the positions."""
        shape, units = x.shape[1:], x.shape[-1]
        y = L.Reshape((-1, units))(x)
        normalized = pick(L.LayerNormalization, L.RMSNormalization, L.Identity)()(y)
        kind = pick("heads", "groups", "recurrent", "both directions")
        if kind == "heads":
            y = L.Add()([y, L.MultiHeadAttention(2, 3, value_dim=pick(None, 4))(normalized, normalized)])
        elif kind == "groups":
            y = L.Add()([y, L.GroupQueryAttention(3, 4, pick(1, 2, 4))(normalized, normalized)])
        else:
            layer = pick(L.GRU, L.LSTM, L.SimpleRNN)(units, return_sequences=True)
            y = layer(normalized) if kind == "recurrent" else L.Bidirectional(layer, merge_mode="sum")(normalized)
        return L.Reshape(shape)(y)

    inputs = keras.Input((10, 10, 3))
    x = unitwise(convolution(inputs, 6))
    for _ in range(rng.integers(1, 4)):
        kind = pick("chain", "residual", "product", "gate", "concatenation", "sequence")
        if kind == "sequence":
            x = unitwise(sequence(x))
            continue
        if kind == "chain":
            x = unitwise(convolution(x, int(rng.choice([4, 6]))))
            continue
        y = unitwise(convolution(x, x.shape[-1]))
        if kind == "gate":
            gate = L.Dense(y.shape[-1], activation="sigmoid")(L.GlobalAveragePooling2D()(y))
            x = L.Multiply()([y, L.Reshape((1, 1, y.shape[-1]))(gate)])
            continue
        x, y = same_size(x, y)
        merges = {"residual": [L.Add, L.Average, L.Maximum, L.Minimum, L.Subtract], "product": [L.Multiply]}
        merge = pick(*merges.get(kind, [L.Concatenate]))
        x = unitwise(merge()([x, y]))
    x = pick(L.Flatten, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)()(x)
    x = L.Dense(5, activation="relu")(x)
    return keras.Model(inputs, [L.Dense(3)(x) for _ in range(rng.integers(1, 3))])


def dense_blocks(size=16):
    inputs = keras.Input((size, size, 3))
    x = L.Conv2D(12, 3, padding="same")(inputs)
    for _ in range(3):
        y = L.ReLU()(L.BatchNormalization(epsilon=1.001e-5)(x))
        x = L.Concatenate()([x, L.Conv2D(6, 3, padding="same")(y)])
    x = L.ReLU()(L.BatchNormalization(epsilon=1.001e-5)(x))
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


OTHERS = {
    "U-Net": u_net, "U-Net of any size": lambda: u_net(None), "squeeze and excitation": squeeze_and_excitation,
    "text classifier": text_classifier, "two inputs, two outputs": two_inputs_two_outputs, "transformer": transformer,
    "recurrent": recurrent, "nested": nested, "three dimensions": three_dimensions, "groups": groups,
    "pre-activation": pre_activation, "pre-activation, of any size": lambda: pre_activation(None),
    "dense blocks": dense_blocks,
}  # fmt: skip


def randomize(model, rng):
    """Set random statistics, offsets and biases."""
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, variable.shape))


def kill(model, fraction, rng):
    """Make this fraction of the units of each noise layer dead, and the others live."""
    for layer in model.layers:
        if isinstance(layer, SBP):
            dead = rng.random(layer.mu.shape) < fraction
            layer.mu.assign(np.where(dead, -20.0, rng.uniform(-0.3, 0, dead.shape)))
            layer.log_sigma.assign(np.where(dead, 5.0, -4.0))


def examples(model, rng, count=2):
    """Random inputs of a model."""
    found = []
    for tensor in model.inputs:
        shape = (count, *(size or 24 for size in tensor.shape[1:]))
        whole = tensor.dtype.startswith("int")
        if tensor.dtype == "bool":
            found.append(rng.random(shape) < 0.7)
            continue
        found.append(rng.integers(50, size=shape) if whole else rng.normal(size=shape).astype(np.float32))
    return found if len(found) > 1 else found[0]


def outputs(model, inputs):
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(model(inputs))]


def difference(model, other, inputs):
    """The largest between the outputs of two networks, relative to their scale."""
    pairs = zip(outputs(model, inputs), outputs(other, inputs), strict=True)
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30) for a, b in pairs)


def traced_multiply_adds(model):
    """MACs of the convolutions and matrix products in the graph that TensorFlow traces of a model, for one example."""
    specs = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    graph = tf.function(lambda *inputs: model(inputs if len(inputs) > 1 else inputs[0])).get_concrete_function(*specs)
    total, operations = 0, [*graph.graph.get_operations()]
    for operation in operations:
        if operation.type in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
            image, kernel = (tensor.shape for tensor in operation.inputs)
            out, last = operation.outputs[0].shape, 1 if operation.type.startswith("Depthwise") else kernel[-2]
            total += int(np.prod(out)) * int(np.prod(kernel[:-2])) * last
        elif operation.type == "MatMul":
            total += (
                int(np.prod(operation.outputs[0].shape)) * operation.inputs[1].shape[operation.get_attr("transpose_b")]
            )
        elif operation.type == "Conv2DBackpropInput":
            _, kernel, image = (tensor.shape for tensor in operation.inputs)
            total += int(np.prod(image[:-1])) * int(np.prod(kernel))
        elif operation.type in ("BatchMatMulV2", "Einsum"):
            raise ValueError(f"{operation.type} is not counted here")
    return total


def counted(model):
    """MACs; if images may have any size, for one position."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return counting.multiply_adds(model)


def check(model, fractions=FRACTIONS):
    """How much a network's outputs change with noise in it, and for each fraction of dead units (how much the smaller
    network's outputs differ, the fraction of the MACs that is left)."""
    rng = np.random.default_rng(0)
    randomize(model, rng)
    inputs = examples(model, rng)
    noisy = pruning.insert(model)
    inserted, whole, found = difference(model, noisy, inputs), counted(model), []
    for fraction in fractions:
        kill(noisy, fraction, rng)
        smaller = pruning.shrink(noisy)
        found.append((difference(noisy, smaller, inputs), counted(smaller) / whole))
    return inserted, found


def timed(name, batch_size=32, pairs=12):
    """Print how long a network takes without half of its units, relative to the whole one, at its own image size."""
    rng, model = np.random.default_rng(0), getattr(keras.applications, name)(weights=None)
    noisy = pruning.insert(model)
    kill(noisy, 0.5, rng)
    smaller = pruning.shrink(noisy)
    print(f"{name}: {counting.multiply_adds(smaller) / counting.multiply_adds(model):.3f} of the MACs")
    for runtime in (runtimes.TensorFlow("CPU:0"), runtimes.LiteRT(1)):
        seconds = timing.seconds_per_batch(model, smaller, batch_size, pairs, runtime)
        low, middle, high = np.quantile(seconds[:, 1] / seconds[:, 0], [0.25, 0.5, 0.75])
        setting = f"{runtime.name}, {runtime.threads} threads, {batch_size} images per batch"
        print(f"{setting}: {middle:.3f} ({low:.3f} to {high:.3f}) of the time")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=300, help="number of random graphs")
    parser.add_argument(
        "--time", metavar="NAME", help="instead, time this network of keras.applications with half of its units dead"
    )
    options = parser.parse_args()
    if options.time:
        return timed(options.time)
    graphs = options.graphs
    worst = 0.0
    print(f"{'':<32}{'noise in':>10}" + "".join(f"{f'{fraction:.0%} dead':>18}" for fraction in FRACTIONS))
    networks = {name: functools.partial(application, name) for name in APPLICATIONS} | OTHERS
    for name, build in networks.items():
        inserted, found = check(build())
        worst = max(worst, inserted, *(difference for difference, _ in found))
        cells = "".join(f"{f'{difference:.0e}, {left:.3f}':>18}" for difference, left in found)
        print(f"{name:<32}{inserted:>10.0e}{cells}", flush=True)
    for seed in tqdm(range(graphs), unit="graph"):
        inserted, found = check(random_graph(np.random.default_rng(seed)))
        worst = max(worst, inserted, *(difference for difference, _ in found))
    print(f"{len(networks)} networks and {graphs} random graphs: the largest difference {worst:.1e}")
    sys.exit(int(worst > TOLERANCE))  # NumPy's bool is not an exit status


if __name__ == "__main__":
    main()
