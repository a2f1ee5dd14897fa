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
from keras import ops
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


def _convolution(x, filters, size=1, strides=1, activation="silu"):
    x = L.BatchNormalization()(L.Conv2D(filters, size, strides, padding="same", use_bias=False)(x))
    return L.Activation(activation)(x)


def _c2f(x, filters, count):
    """As in YOLOv8: half of the units go through residual blocks, and all that is between them is put side by side."""
    parts = [*ops.split(_convolution(x, filters), 2, axis=-1)]
    for _ in range(count):
        y = _convolution(_convolution(parts[-1], filters // 2, 3), filters // 2, 3)
        parts.append(parts[-1] + y)
    return _convolution(L.Concatenate()(parts), filters)


def c2f(size=32, width=16):
    inputs = keras.Input((size, size, 3))
    x = _convolution(inputs, width, 3, 2)
    for stage in range(2):
        x = _c2f(_convolution(x, width * 2 ** (stage + 1), 3, 2), width * 2 ** (stage + 1), 2)
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def detector(size=32, width=16):
    """A pyramid of three scales, and heads of their boxes and classes that all scales share."""
    inputs = keras.Input((size, size, 3))
    x, scales = _convolution(inputs, width, 3, 2), []
    for stage in range(3):
        x = _c2f(_convolution(x, width * 2**stage, 3, 2), width * 2**stage, 1)
        scales.append(x)
    pyramid = [L.Conv2D(width, 1)(scales[-1])]
    for x in scales[-2::-1]:
        pyramid.append(L.Add()([L.UpSampling2D()(pyramid[-1]), L.Conv2D(width, 1)(x)]))
    pyramid, outputs = [L.Conv2D(width, 3, padding="same")(x) for x in pyramid], []
    for units in (4, 10):
        first, second = (L.Conv2D(width, 3, padding="same", activation="relu") for _ in range(2))
        last = L.Conv2D(3 * units, 3, padding="same")
        outputs.append(L.Concatenate(axis=1)([L.Reshape((-1, units))(last(second(first(x)))) for x in pyramid]))
    return keras.Model(inputs, outputs)


def shuffle_net(size=32, width=16):
    """ShuffleNetV2: half of the units go through a block, then both halves are shuffled."""

    def depthwise(x, strides=1):
        return L.BatchNormalization()(L.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x))

    def shuffled(parts):
        x = L.Concatenate()(parts)
        _, height, columns, units = x.shape
        x = L.Permute((1, 2, 4, 3))(L.Reshape((height, columns, 2, units // 2))(x))
        return L.Reshape((height, columns, units))(x)

    inputs = keras.Input((size, size, 3))
    x = _convolution(inputs, width, 3, 2, "relu")
    for stage in (1, 2):
        own = width * stage
        first = _convolution(depthwise(x, 2), own, activation="relu")
        second = depthwise(_convolution(x, own, activation="relu"), 2)
        x = shuffled([first, _convolution(second, own, activation="relu")])
        for _ in range(2):
            first, second = ops.split(x, 2, axis=-1)
            second = depthwise(_convolution(second, own, activation="relu"))
            x = shuffled([first, _convolution(second, own, activation="relu")])
    x = _convolution(x, 4 * width, activation="relu")
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def random_graph(rng):
    """A network of random layers with rules, with forks, sums, products and concatenations."""

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    def convolution(x, filters):
        size, padding = int(rng.integers(1, 4)), pick("same", "same", "valid") if x.shape[1] > 6 else "same"
        common = {"padding": padding, "use_bias": bool(rng.integers(2)), "activation": pick(None, "relu", "tanh")}
        kind = pick("conv", "conv", "separable", "transposed", "groups", "spectral")
        if kind == "separable":
            return L.SeparableConv2D(filters, size, depth_multiplier=int(rng.integers(1, 3)), **common)(x)
        if kind == "transposed":
            return L.Conv2DTranspose(filters, size, **common)(x)
        if kind == "spectral":
            return L.SpectralNormalization(L.Conv2D(filters, size, **common))(x)
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
                L.RMSNormalization, lambda: L.GroupNormalization(1 + (x.shape[-1] % 2 == 0)),
            )()(x)  # fmt: skip
            x = x if x.shape[1] <= 16 else L.MaxPooling2D()(x)
        return x

    def same_size(x, y):
        side = min(x.shape[1], y.shape[1])
        return [L.Cropping2D(((0, z.shape[1] - side), (0, z.shape[2] - side)))(z) for z in (x, y)]

    def renumbered(x):
        """Units split, sliced, shuffled, padded, or moved to positions and back."""
        height, columns, units = x.shape[1:]
        kind = pick(
            "gate", "glu", "split", "slice", "shuffle", "pad", "pixels", "blocks", "array", "positions", "steps"
        )
        if kind == "gate":
            first, second = ops.split(convolution(x, 8), 2, axis=-1)
            return first * pick(ops.sigmoid, ops.tanh)(unitwise_function(second))
        if kind == "glu":
            return ops.glu(convolution(x, 8))
        if kind == "split":
            cut = int(rng.integers(1, units))
            first, second = ops.split(x, [cut], axis=-1)
            y = L.Conv2D(units - cut, 3, padding="same", activation="relu")(second)
            return L.Concatenate()([first, second, pick(ops.add, ops.multiply, ops.maximum)(second, y)])
        if kind == "slice":
            first, second = L.Conv2D(4, 1)(x[..., : units // 2 + 1]), pick(x[..., ::-1], x[:, :, :, -2:])
            return L.Concatenate()([first, second])
        if kind == "shuffle" and units % 2 == 0:
            shape, order = (height, columns, 2, units // 2), pick((0, 1, 3, 2), (1, 0, 3, 2))
            x = L.Permute([axis + 1 for axis in order])(L.Reshape(shape)(x))
            return L.Reshape((*x.shape[1:3], units))(x)
        if kind == "pad":
            return ops.pad(x, [(0, 0)] * 3 + [(1, 2)]) + L.Conv2D(units + 3, 1)(x)
        if kind == "pixels":
            x = L.Conv2D(8, 1)(x)
            if rng.integers(2):
                return ops.depth_to_space(x, 2)
            x = ops.transpose(ops.reshape(x, (-1, height, columns, 2, 2, 2)), (0, 1, 4, 2, 5, 3))
            return ops.reshape(x, (-1, 2 * height, 2 * columns, 2))
        if kind == "blocks" and height % 2 == columns % 2 == 0:
            return convolution(ops.space_to_depth(x, 2), 4)
        if kind == "array":
            shape = pick((units,), (height, columns, units), (1, height, 1, 1))
            return pick(ops.add, ops.multiply, ops.subtract, ops.maximum)(x, rng.normal(size=shape).astype(np.float32))
        if kind == "positions":
            reduce = pick(ops.mean, ops.max, ops.sum, ops.min)
            return x + reduce(L.Conv2D(units, 1)(x), axis=pick((1, 2), 1, -2), keepdims=True)
        if kind == "steps":
            return L.TimeDistributed(pick(L.Conv1D, L.Conv1DTranspose)(units, 3, padding="same"))(x)
        return x

    def unitwise_function(x):
        return pick(ops.relu, ops.square, lambda x: x * 2.0, lambda x: x + 0.5)(x)

    def sequence(x):
        """Attention or a recurrent layer along the positions."""
        shape, units = x.shape[1:], x.shape[-1]
        y = L.Reshape((-1, units))(x)
        normalized = pick(L.LayerNormalization, L.RMSNormalization, L.Identity)()(y)
        kind = pick("heads", "groups", "scores", "recurrent", "states", "both directions", "several cells")
        if kind == "heads":
            y = L.Add()([y, L.MultiHeadAttention(2, 3, value_dim=pick(None, 4))(normalized, normalized)])
        elif kind == "groups":
            y = L.Add()([y, L.GroupQueryAttention(3, 4, pick(1, 2, 4))(normalized, normalized)])
        elif kind == "scores":
            y = L.Add()([y, pick(L.Attention, L.AdditiveAttention)()([L.Dense(units)(normalized), normalized])])
        elif kind == "states":
            layer, both = pick(L.GRU, L.LSTM), bool(rng.integers(2))
            before = layer(units, return_state=True)
            before = L.Bidirectional(before, merge_mode="sum") if both else before
            _, *states = before(normalized)
            y = layer(units, return_sequences=True)(y, initial_state=states[: 1 + (layer is L.LSTM)])
        elif kind == "several cells":
            y = L.RNN([L.GRUCell(4), pick(L.LSTMCell, L.SimpleRNNCell)(units)], return_sequences=True)(normalized)
        else:
            layer = pick(L.GRU, L.LSTM, L.SimpleRNN)(units, return_sequences=True)
            y = layer(normalized) if kind == "recurrent" else L.Bidirectional(layer, merge_mode="sum")(normalized)
        return L.Reshape(shape)(y)

    inputs = keras.Input((10, 10, 3))
    x = unitwise(convolution(inputs, 6))
    for _ in range(rng.integers(1, 4)):
        kind = pick("chain", "residual", "product", "gate", "concatenation", "sequence", "renumbered", "renumbered")
        if kind == "renumbered":
            x = unitwise(renumbered(x))
            continue
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
    "dense blocks": dense_blocks, "C2f": c2f, "detector": detector, "ShuffleNet": shuffle_net,
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


def halves(names=("U-Net", "C2f", "detector", "ShuffleNet")):
    """Print what is left of networks without exactly half of each noise layer's units: times fewer MACs, how much the
    outputs differ, and the losses of five steps of fine-tuning, to fit random numbers."""
    from tests.support.halves import halved  # which imports this module

    for name in names:
        noisy, smaller = halved(OTHERS[name]())
        rng = np.random.default_rng(0)
        given = examples(noisy, rng, 8)
        ratio, different = counted(noisy) / counted(smaller), difference(noisy, smaller, given)
        smaller.compile("adam", "mse", jit_compile=False)
        numbers = [rng.normal(size=output.shape).astype(np.float32) for output in outputs(smaller, given)]
        losses = smaller.fit(given, numbers, batch_size=8, epochs=5, verbose=0).history["loss"]
        print(f"{name:<32}{ratio:>6.2f}x{different:>9.0e}   {', '.join(f'{loss:.3f}' for loss in losses)}", flush=True)


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
    parser.add_argument("--halves", action="store_true", help="instead, fine-tune some without half of their units")
    options = parser.parse_args()
    if options.time:
        return timed(options.time)
    if options.halves:
        return halves()
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
