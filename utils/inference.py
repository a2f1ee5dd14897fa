"""A network for use: the same function in stock Keras, arranged so that a CPU runs it faster; exports of it."""

import math
import os
import sys

import keras
import numpy as np
import tensorflow as tf

from utils.plumbing import checkpoint, networks
from utils.plumbing.command_line import UserError
from utils.pruning import graph, rules

# Floats in a vector register (AVX-512): a convolution takes as long with fewer filters.
LANES = 16


def fast(model):
    """A copy of a network that computes the same up to rounding.

    A convolution of few filters computes several neighbouring columns at once, as more filters over fewer columns
    (`_columns`): the register is full, and some products are with zeros, which `cost.multiply_adds` is not asked about.
    Units are selected as rows of the transpose, which is a copy of rows and not of single numbers.

    Args:
        model: functional or Sequential, of stock layers and ops.
    """

    def instead(node, tensors):
        op = node.operation
        if rules.is_take(node):
            return [_selected(tensors[0], rules.taken(node).tolist(), op.name)]
        if isinstance(op, keras.layers.Conv2D) and _columns(op) > 1:
            return [_wide(op, tensors[0], _columns(op))]
        return None

    return graph.copied(graph.opened(model), instead)


def _selected(x, units, name):
    if len(x.shape) > 2:
        return keras.ops.take(x, units, axis=-1)
    x = keras.ops.take(keras.ops.transpose(x), units, axis=0)
    # By way of a third axis, or else TensorFlow puts the transpose into the product with the next kernel, as the slower
    # product it has for that.
    return keras.layers.Flatten(name=f"{name}_rows")(keras.ops.transpose(keras.ops.expand_dims(x, -1), (1, 0, 2)))


def _columns(conv):
    """How many columns of its output a convolution should compute as one: 1 if it is best as it is."""
    plain = {
        "strides": (1, 1),
        "dilation_rate": (1, 1),
        "padding": "valid",
        "groups": 1,
        "data_format": "channels_last",
    }
    if any(getattr(conv, name) != value for name, value in plain.items()):
        return 1
    common = math.gcd(conv.input.shape[2], conv.output.shape[2])
    return max(n for n in range(1, common + 1) if common % n == 0 and (n == 1 or n * conv.filters <= LANES))


def _wide(conv, x, columns):
    """The output of a convolution from its input, computed as so many times as many filters over as fewer columns."""
    height, width, inputs = x.shape[1:]
    kernel, bias = np.asarray(conv.kernel), np.asarray(conv.bias) if conv.use_bias else np.zeros(conv.filters)
    rows, taps, _, filters = kernel.shape
    # Row, tap, column within a position, input -> column, filter: a column's kernel is shifted by its place.
    wide = np.zeros((rows, taps - 1 + columns, inputs, columns, filters), np.float32)
    for column in range(columns):
        wide[:, column : column + taps, :, column] = kernel
    wide = wide.reshape(rows, -1, columns * inputs, columns * filters)
    layer = keras.layers.Conv2D(columns * filters, wide.shape[:2], activation=conv.activation, name=conv.name)
    x = layer(keras.layers.Reshape((height, width // columns, columns * inputs), name=f"{conv.name}_narrow")(x))
    layer.set_weights([wide, np.tile(bias, columns)])
    return keras.layers.Reshape(conv.output.shape[1:], name=f"{conv.name}_columns")(x)


def export(folder):
    """Write a run's network.keras as a SavedModel too (`saved_model/`, the fast form) and as `network.tflite`.

    Says on stderr by how much the outputs of each differ from network.keras's on 100 random images, at the most.

    Raises:
        UserError: network.keras cannot be read, or the exports cannot be written.
    """
    model = networks.load(os.path.join(folder, "network.keras"))
    saved, lite = os.path.join(folder, "saved_model"), os.path.join(folder, "network.tflite")
    # As it is: the columns and rows are for a CPU with wide registers.
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    try:
        fast(model).export(saved, verbose=False)
        checkpoint.write(lite, lambda file: file.write(content))
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write the exports in {folder} ({error}): make room, or let it be written") from None

    images = np.random.default_rng(0).random((100, *model.inputs[0].shape[1:]), np.float32)
    archive = tf.saved_model.load(saved)
    outputs = {saved: archive.serve(images), lite: _run_lite(content, images)}
    for path, output in outputs.items():
        difference = np.abs(np.asarray(output) - np.asarray(model(images))).max()
        print(f"{path}: its outputs differ from network.keras's by {difference:.1e} at most", file=sys.stderr)


def _run_lite(content, images):
    interpreter = tf.lite.Interpreter(model_content=content)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
