"""A graph of channels_first layers as one of channels_last layers, in which the units are the last axis."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules import clone_layer, is_unitwise, set_weights
from keras_sbp.utils.pruning.rules.rule import axis_order

Tensors = dict[int, keras.KerasTensor]  # {id of a tensor of the old graph: that of the new one}

_RANKS = ("1D", "2D", "3D")
SPATIAL = {"Conv", "DepthwiseConv", "SeparableConv", "MaxPooling", "AveragePooling", "GlobalMaxPooling"}
SPATIAL |= {"GlobalAveragePooling", "Cropping", "UpSampling", "ZeroPadding", "SpatialDropout"}
SPATIAL = (
    {name + rank for name in SPATIAL for rank in _RANKS} | {f"Conv{rank}Transpose" for rank in _RANKS} | {"Flatten"}
)
NORMALIZATIONS = {"BatchNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization"}
# What does the same to each number, wherever it is: layers, and operations of keras.ops.
ALIKE = {"Activation", "ActivityRegularization", "ELU", "GaussianDropout", "GaussianNoise", "Identity", "LeakyReLU"}
ALIKE |= {"Absolute", "Add", "Average", "Divide", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu"}
ALIKE |= {"Maximum", "Minimum", "Multiply", "ReLU", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "Softplus", "Square"}
ALIKE |= {"Subtract", "Tanh", "TrueDivide", "Dropout"}
ALONG_AXES = {"Amax", "Amin", "Concatenate", "Glu", "Max", "Mean", "Min", "Split", "Sum"}


def outputs(
    nodes: Sequence[Node], inputs: Sequence[keras.KerasTensor], old: Sequence[keras.KerasTensor]
) -> list[keras.KerasTensor] | None:
    """The outputs of a graph whose layers are channels_last; None if they are.

    Args:
        nodes: of the graph, each after those whose outputs it takes.
        inputs: of the graph.
        old: its outputs.
    """
    if not any(map(_is_first, nodes)):
        return None
    graph = _Graph(inputs)
    for node in nodes:
        if not isinstance(node.operation, layers.InputLayer):
            graph.add(node)
    return [graph.first(tensor) for tensor in old]


class _Graph:
    """The new graph.

    Attributes:
        as_was: tensors whose axes are where they were.
        as_last: tensors whose second axis is now the last.
        copies: {id of a layer: that of the new graph}.
    """

    def __init__(self, inputs: Sequence[keras.KerasTensor]):
        self.as_was: Tensors = {id(tensor): tensor for tensor in inputs}
        self.as_last: Tensors = {}
        self.copies: dict[int, keras.Layer] = {}

    def first(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        if id(tensor) not in self.as_was:
            rank = len(tensor.shape)
            self.as_was[id(tensor)] = ops.transpose(self.as_last[id(tensor)], (0, rank - 1, *range(1, rank - 1)))
        return self.as_was[id(tensor)]

    def last(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        if id(tensor) not in self.as_last:
            new, rank = self.as_was[id(tensor)], len(tensor.shape)
            made = keras_private.producer(new)
            is_transpose = axis_order(made) == [0, rank - 1, *range(1, rank - 1)]
            before = made.input_tensors[0] if is_transpose else ops.transpose(new, (0, *range(2, rank), 1))
            self.as_last[id(tensor)] = before
        return self.as_last[id(tensor)]

    def add(self, node: Node) -> None:
        op, (output, *_) = node.operation, node.outputs
        rank = len(output.shape)
        if _is_first(node):
            new = self._call(node, data_format="channels_last")
        elif _is_gate(node):
            new = [ops.reshape(self.first(node.input_tensors[0]), (-1, *(1,) * (rank - 2), output.shape[1]))]
        elif _normalizes_units(node):
            new = self._call(node, axis=-1)
        elif axis_order(node) == [0, *range(2, rank), 1]:
            self.as_was[id(output)] = self.last(node.input_tensors[0])
            return
        elif not any(id(tensor) in self.as_last for tensor in node.input_tensors) or not _same_rank(node):
            new = None
        elif _is_alike(node):
            new = self._call(node)
        elif keras_private.is_keras_op(op, ALONG_AXES) and op.axis is not None:
            new = self._along_axes(node)
        else:
            new = None
        if new is None:
            new = keras_private.call(node, op, [self.first(tensor) for tensor in node.input_tensors])
            self.as_was |= zip(map(id, node.outputs), new)
        elif rank > 2:
            self.as_last |= zip(map(id, node.outputs), new)
        else:
            self.as_was |= zip(map(id, node.outputs), new)

    def _call(self, node: Node, **changes: Any) -> list[keras.KerasTensor]:
        """A call with tensors whose units are the last axis."""
        op, tensors = node.operation, [self.last(tensor) for tensor in node.input_tensors]
        if changes and id(op) not in self.copies:
            self.copies[id(op)] = clone_layer(op, **changes)
        new = keras_private.call(node, self.copies.get(id(op), op), tensors)
        if changes:
            set_weights(self.copies[id(op)], op.get_weights())
        return new

    def _along_axes(self, node: Node) -> list[keras.KerasTensor] | None:
        """The same, with its axes where they are now; None if it takes the units together and other axes with them."""
        op, rank = node.operation, len(node.input_tensors[0].shape)
        given = [axis % rank for axis in ([op.axis] if isinstance(op.axis, int) else op.axis)]
        loses_units = 1 in given and not keras_private.is_keras_op(op, {"Concatenate", "Glu", "Split"})
        if loses_units or 0 in given:
            return None
        axes = [axis - 1 if axis > 1 else rank - 1 for axis in given]
        axis = axes[0] if isinstance(op.axis, int) else axes
        other = type(op).from_config(op.get_config() | {"axis": axis})
        return keras_private.call(node, other, [self.last(tensor) for tensor in node.input_tensors])


def _is_first(node: Node) -> bool:
    """Whether a call is one of a channels_first layer that can be channels_last."""
    op = node.operation
    if not isinstance(op, keras.Layer) or not keras_private.is_keras_op(op, SPATIAL):
        return False
    is_first = getattr(op, "data_format", None) == "channels_first" and len(node.input_tensors[0].shape) > 2
    return is_first and is_unitwise(getattr(op, "activation", keras.activations.linear))


def _normalizes_units(node: Node) -> bool:
    """Whether a call is one of a normalization of the second axis."""
    if not keras_private.is_keras_op(node.operation, NORMALIZATIONS):
        return False
    axis, rank = node.operation.axis, len(node.outputs[0].shape)
    axes = [axis] if isinstance(axis, int) else list(axis)
    return rank > 2 and [axis % rank for axis in axes] == [1] and len(node.input_tensors) == 1


def _is_alike(node: Node) -> bool:
    """Whether a call does the same to each number, wherever it is."""
    op = node.operation
    args, kwargs = keras_private.arguments(node)
    others = [value for value in keras.tree.flatten((args, kwargs)) if not isinstance(value, keras.KerasTensor)]
    is_known = keras_private.is_keras_op(op, ALIKE) and not getattr(op, "noise_shape", None)
    return (
        is_known and is_unitwise(getattr(op, "activation", keras.activations.linear)) and not any(map(np.ndim, others))
    )


def _is_gate(node: Node) -> bool:
    """Whether a call is a reshape of units to images of one pixel."""
    before, after = node.input_tensors[0].shape if node.input_tensors else (), node.outputs[0].shape
    is_reshape = keras_private.is_keras_op(node.operation, {"Reshape"}) and len(before) == 2 and len(after) > 2
    return is_reshape and after[0] is None and before[1] == after[1] and all(size == 1 for size in after[2:])


def _same_rank(node: Node) -> bool:
    ranks = {len(tensor.shape) for tensor in node.input_tensors}
    return len(ranks) == 1 and ranks.pop() > 2
