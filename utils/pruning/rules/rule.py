"""The rule of layers that treat every unit alone, of inputs, and of what the other rules do not know."""

import keras
import numpy as np

from utils.pruning import graph

# Activations that do not treat a unit alone.
MIXING = (
    keras.activations.glu,
    keras.activations.log_softmax,
    keras.activations.softmax,
    keras.activations.sparsemax,
)


class Rule:
    """The rule of a layer that treats every unit alone: an activation, pooling, dropout.

    Attributes:
        node, op: of the graph, and its operation.
        pinned: whether all of its outputs stay if one of them does.
    """

    KINDS = (
        keras.layers.Activation,
        keras.layers.AveragePooling2D,
        keras.layers.Dropout,
        keras.layers.GlobalAveragePooling2D,
        keras.layers.Identity,
        keras.layers.MaxPooling2D,
        keras.layers.ReLU,
    )
    pinned = False

    def __init__(self, node, multiplier=None):
        self.node, self.op, self.multiplier = node, node.operation, multiplier

    @classmethod
    def fits(cls, node):
        """Whether the rule is that of a node."""
        return isinstance(node.operation, cls.KINDS) and by_last_axis(node.operation)

    def varies(self, varies):
        """Which outputs vary with the model's inputs: from (units,) bool of each input to (units,) bool of each."""
        return varies

    def constants(self, constants):
        """The outputs without their batch axis, from the inputs, where these do not vary."""
        outputs = graph.call(self.node, self.op, [constant[None] for constant in constants])
        return [np.asarray(output)[0] for output in outputs]

    def reads(self, keep):
        """Which inputs are read: from (units,) bool of each output, whether it stays, to (units,) bool of each."""
        return keep

    def pins(self, pinned):
        """Which inputs have to be there: from (units,) bool of each output, whether it has to, to the same of each."""
        return pinned

    def rebuild(self, build, parts, keep):
        """Make the layer anew.

        Args:
            build: the `Rebuild` that is under way.
            parts: the `Part` of each input.
            keep: the units of each output that stay, indices.
        Returns:
            The `Part` of each output.
        """
        (part,) = parts
        if not self._commutes():
            part = build.rescaled(part, self.op)
        if build.plain and isinstance(self.op, (keras.layers.Dropout, keras.layers.Identity)):
            return [part]
        layer = build.like(self.op)
        return [part._replace(tensor=layer(part.tensor))]

    def multiply_adds(self, inputs, outputs):
        """Multiply-adds for one example, of so many units of its inputs and of its outputs."""
        return 0

    def _commutes(self):
        """Whether a positive factor on a unit may as well come after the layer."""
        if isinstance(self.op, keras.layers.Activation):
            return self.op.activation in (keras.activations.relu, keras.activations.linear)
        return not isinstance(self.op, keras.layers.ReLU) or (self.op.max_value is None and not self.op.threshold)


class Input(Rule):
    """An input of the model: all its units vary."""

    KINDS = keras.layers.InputLayer

    def varies(self, varies):
        return [np.ones(width(tensor), bool) for tensor in self.node.outputs]

    def constants(self, constants):
        return [np.zeros(tensor.shape[1:], tensor.dtype) for tensor in self.node.outputs]

    def reads(self, keep):
        return []

    pins = reads


class Barrier(Rule):
    """An operation that the other rules do not know: all that it reads and gives stays, or it goes as a whole."""

    pinned = True

    @classmethod
    def fits(cls, node):
        return True

    def varies(self, varies):
        any_varies = any(units.any() for units in varies)
        return [np.full(width(tensor), any_varies) for tensor in self.node.outputs]

    def reads(self, keep):
        return [np.full(width(tensor), keep[0].any()) for tensor in self.node.input_tensors]

    def pins(self, pinned):
        return [np.full(width(tensor), pinned[0].any()) for tensor in self.node.input_tensors]

    def rebuild(self, build, parts, keep):
        parts = [build.rescaled(part, self.op) for part in parts]
        layer = build.like(self.op)
        outputs = graph.call(self.node, layer, [part.tensor for part in parts])
        build.take_weights(layer, self.op, [...] * len(getattr(self.op, "weights", [])))
        return [build.part(tensor) for tensor in outputs]


def width(tensor):
    """How many units a tensor has; 1 where its last axis is the batch, or of any length."""
    return (tensor.shape[-1] if len(tensor.shape) > 1 else None) or 1


def by_last_axis(op):
    """Whether the units of a layer are its last axis, and an output may read every input."""
    mixing = not hasattr(op, "kernel") and getattr(op, "activation", None) in MIXING
    axis = getattr(op, "axis", -1)
    return (
        not mixing
        and getattr(op, "groups", 1) == 1
        and getattr(op, "data_format", None) != "channels_first"
        and axis in (-1, len(op.output.shape) - 1)
    )
