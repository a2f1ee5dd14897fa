"""MACs of calls that no rule knows, counted in the graph that TensorFlow traces of them; on other backends unknown."""

import math
import re
from collections.abc import Callable, Sequence

import keras

from keras_sbp.lazy import tf

# Operations that compute products that nothing here counts, or call another graph, perhaps several times.
_UNKNOWN = re.compile(r".*(Call|While|Case|PyFunc|RNN|MatMul|Conv|Einsum).*|(Stateless)?If")


def multiply_adds(function: Callable, shapes: Sequence[tuple[int | None, ...]], dtypes: Sequence[str]) -> int | None:
    """MACs of a function of tensors; None if it cannot be traced, or computes anything that cannot be counted.

    On other backends than TensorFlow always None.

    Args:
        shapes: of the tensors, the batch first. It is one example; other axes of any length are 1.
        dtypes: of the tensors.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    specs = [tf.TensorSpec([1, *(length or 1 for length in shape[1:])], dtype) for shape, dtype in zip(shapes, dtypes)]
    try:
        graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
        return sum(map(_products, graph.get_operations()))
    except Exception:  # whatever somebody's layer raises, and sizes that are not known
        return None


def _products(op: "tf.Operation") -> int:
    if op.type in _COUNTED:
        return _COUNTED[op.type](op)
    if _UNKNOWN.fullmatch(op.type):
        raise ValueError(f"{op.type} is not counted")
    return 0


def _size(tensor: "tf.Tensor") -> int:
    return math.prod(tensor.shape.as_list())


def _matmul(op: "tf.Operation") -> int:
    is_transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _size(op.outputs[0]) * op.inputs[0].shape[-2 if is_transposed else -1]


def _einsum(op: "tf.Operation") -> int:
    inputs, _ = op.get_attr("equation").decode().split("->")
    lengths = {}
    for labels, tensor in zip(inputs.split(","), op.inputs):
        lengths.update(zip(labels, tensor.shape.as_list(), strict=True))  # an ellipsis is not as long
    return math.prod(lengths.values()) if len(op.inputs) > 1 else 0


_COUNTED = {
    "MatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Einsum": _einsum,
    # Kernels are (..., inputs of a group, outputs), (height, width, inputs, multiplier), and (..., outputs, inputs).
    "Conv2D": lambda op: _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:-1]),
    "Conv3D": lambda op: _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:-1]),
    "DepthwiseConv2dNative": lambda op: _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:2]),
    "Conv2DBackpropInput": lambda op: _size(op.inputs[2]) * math.prod(op.inputs[1].shape[:-1]),
    "Conv3DBackpropInputV2": lambda op: _size(op.inputs[2]) * math.prod(op.inputs[1].shape[:-1]),
}
