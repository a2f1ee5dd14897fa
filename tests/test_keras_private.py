"""The contract with Keras: each private name that pruning relies on, so that a failure says which one has changed."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sbp import keras_private
from keras_sbp.utils.pruning.rules import barrier
from keras_sbp.utils.pruning.rules.arithmetic import Scalar
from keras_sbp.utils.pruning.rules.merge import Merge, Product
from keras_sbp.utils.pruning.rules.unitwise import Elementwise


@pytest.fixture
def model():
    inputs = keras.Input((4,), name="x")
    dense = layers.Dense(4, name="dense")
    return keras.Model(inputs, layers.Add(name="add")([dense(dense(inputs)), inputs]))


def test_functional_models_are_graphs_and_subclasses_are_not(model):
    class Own(keras.Model):
        def call(self, x):
            return x

    assert keras_private.functional(model) is model
    assert keras_private.functional(Own()) is None


def test_sequential_models_have_a_graph_once_they_are_built():
    assert keras_private.functional(keras.Sequential([layers.Dense(2)])) is None
    built = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")])
    assert [node.operation.name for node in keras_private.nodes(keras_private.functional(built))][1:] == ["dense"]


def test_nodes_follow_those_whose_outputs_they_take(model):
    nodes = keras_private.nodes(model)
    assert [node.operation.name for node in nodes] == ["x", "dense", "dense", "add"]
    first, second, add = nodes[1:]
    assert second.input_tensors[0] is first.outputs[0]
    assert [id(x) for x in add.input_tensors] == [id(second.outputs[0]), id(model.inputs[0])]
    assert not nodes[0].input_tensors


def test_calls_of_a_layer_and_the_producer_of_a_tensor(model):
    dense = model.get_layer("dense")
    assert keras_private.calls(dense) == keras_private.nodes(model)[1:3]
    for call in keras_private.calls(dense):
        assert keras_private.producer(call.outputs[0]) is call


def test_recorded_arguments_and_a_call_repeated_with_others():
    inputs, other = keras.Input((4,)), keras.Input((4,))
    dropout = layers.Dropout(0.5)
    dropout(inputs, training=True)
    (node,) = keras_private.calls(dropout)
    assert keras_private.arguments(node) == ((inputs,), {"training": True})
    assert keras_private.arguments(node, [other]) == ((other,), {"training": True})
    keras_private.call(node, dropout, [other], training=False)
    assert keras_private.arguments(keras_private.calls(dropout)[1]) == ((other,), {"training": False})


def test_training_is_recorded_for_layers_that_do_not_take_it():
    """Thus a layer inside a layer still gets it."""
    dense = layers.Dense(2)
    dense(keras.Input((3,)), training=True)
    assert keras_private.arguments(keras_private.calls(dense)[0])[1] == {"training": True}


def test_inputs_of_a_nested_call_in_order():
    second, first = keras.Input((6,), name="b"), keras.Input((5,), name="a")
    model = keras.Model([second, first], layers.Concatenate()([second, first]))
    one, other = keras.Input((5,)), keras.Input((6,))
    assert [id(x) for x in keras_private.flat_inputs(model, {"a": one, "b": other})] == [id(other), id(one)]
    (converted, _) = keras_private.flat_inputs(model, [keras.Input((6,), dtype="int32"), one])
    assert converted.dtype == "float32"


def test_renamed_operations_are_copies_without_calls():
    (node,) = keras_private.calls(keras_private.producer(ops.relu(keras.Input((3,)))).operation)
    other = keras_private.renamed(node.operation, "other")
    assert other.name == "other" and keras_private.calls(other) == [] and node.operation.name != "other"
    y = other(keras.Input((2,)))
    assert keras_private.producer(y).operation is other


def test_masks_come_with_tensors():
    embedding, dense = layers.Embedding(5, 3, mask_zero=True), layers.Dense(2)
    x = embedding(keras.Input((4,), dtype="int32"))
    assert keras_private.mask_of(x).shape == (None, 4)
    assert keras_private.mask_of(dense(x)) is not None
    assert keras_private.mask_of(keras.Input((4,))) is None


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_masks_of_inputs_are_recorded_in_the_call_of_a_nested_model():
    inner = keras.Sequential([keras.Input((4, 3)), layers.Dense(2)])
    x = layers.Embedding(5, 3, mask_zero=True)(keras.Input((4,), dtype="int32"))
    inner(x)
    assert keras_private.arguments(keras_private.calls(inner)[-1])[1]["mask"] is keras_private.mask_of(x)


def test_what_is_defined_in_keras():
    class Own(layers.Dense):
        def call(self, x):
            return x

    assert keras_private.is_from_keras(layers.Dense) and keras_private.is_from_keras(keras.Model.train_step)
    assert not keras_private.is_from_keras(Own) and not keras_private.is_from_keras(Own.call)


UNARY = {
    "Absolute": ops.abs, "Cast": lambda x: ops.cast(x, "int32"), "Celu": ops.celu, "Elu": ops.elu,
    "Clip": lambda x: ops.clip(x, 0, 1), "Cos": ops.cos, "Erf": ops.erf, "Exp": ops.exp, "Expm1": ops.expm1,
    "Gelu": ops.gelu, "Log": ops.log, "Log1p": ops.log1p, "Reciprocal": ops.reciprocal, "Rsqrt": ops.rsqrt,
    "Sign": ops.sign, "Sin": ops.sin, "Sqrt": ops.sqrt,
    "HardShrink": ops.hard_shrink, "HardSigmoid": ops.hard_sigmoid, "HardSilu": ops.hard_silu,
    "HardTanh": ops.hard_tanh, "LeakyRelu": ops.leaky_relu, "LogSigmoid": ops.log_sigmoid,
    "Negative": ops.negative,
    "ReLU": lambda x: keras.activations.relu(x, 0.1), "Relu": ops.relu, "Relu6": ops.relu6, "Selu": ops.selu,
    "Sigmoid": ops.sigmoid, "Silu": ops.silu, "SoftShrink": ops.soft_shrink, "Softplus": ops.softplus,
    "Softsign": ops.softsign, "SparseSigmoid": ops.sparse_sigmoid, "Square": ops.square,
    "Squareplus": ops.squareplus, "Tanh": ops.tanh, "TanhShrink": ops.tanh_shrink,
    "Threshold": lambda x: ops.threshold(x, 0.1, 0.0),
}  # fmt: skip
BINARY = {
    "Add": ops.add, "Divide": ops.divide, "Maximum": ops.maximum, "Minimum": ops.minimum, "Multiply": ops.multiply,
    "Subtract": ops.subtract, "TrueDivide": ops.true_divide,
}  # fmt: skip
OTHERS = {
    "Take": lambda x: ops.take(x, [0, 2], axis=-1), "Concatenate": lambda x: ops.concatenate([x, x], axis=-1),
    "Stack": lambda x: ops.stack([x, x]), "Reshape": lambda x: ops.reshape(x, (-1, 2, 2)),
    "BroadcastTo": lambda x: ops.broadcast_to(x, (3, 4)), "Tile": lambda x: ops.tile(x, (1, 2)),
    "Slice": lambda x: ops.slice(x, (0, 0), (1, 2)), "Repeat": lambda x: ops.repeat(x, 2, axis=1),
    "Transpose": ops.transpose, "Where": lambda x: ops.where(x > 0, x, x), "ZerosLike": ops.zeros_like,
}  # fmt: skip
PRODUCTS = {
    "AdditiveAttention": lambda x: layers.AdditiveAttention()([pixels(x)[0], pixels(x)[0]]),
    "Attention": lambda x: layers.Attention()([pixels(x)[0], pixels(x)[0]]),
    "Conv": lambda x: ops.conv(pixels(x), np.ones((1, 1, 1, 2), np.float32)),
    "ConvTranspose": lambda x: ops.conv_transpose(pixels(x), np.ones((1, 1, 2, 1), np.float32), 2),
    "Correlate": lambda x: ops.correlate(x[0], x[0]),
    "DepthwiseConv": lambda x: ops.depthwise_conv(pixels(x), np.ones((1, 1, 1, 2), np.float32)),
    "Dot": lambda x: layers.Dot(1)([x, x]),
    "DotProductAttention": lambda x: ops.dot_product_attention(pixels(x), pixels(x), pixels(x)),
    "Einsum": lambda x: ops.einsum("bi,bj->bij", x, x), "Inner": lambda x: ops.inner(x, x),
    "Matmul": lambda x: ops.matmul(x, ops.transpose(x)),
    "SeparableConv": lambda x: ops.separable_conv(pixels(x), np.ones((1, 1, 1, 2)), np.ones((1, 1, 2, 2))),
    "Tensordot": lambda x: ops.tensordot(keras.Input(batch_shape=(2, 4)), np.ones((4, 2)), 1),
    "Vdot": lambda x: ops.vdot(x[0], x[0]),
}  # fmt: skip


def pixels(x):
    return ops.reshape(x, (-1, 2, 2, 1))


@pytest.mark.parametrize("name, function", (UNARY | OTHERS | PRODUCTS).items())
def test_class_names_of_keras_ops(name, function):
    assert keras_private.is_keras_op(keras_private.producer(function(keras.Input((4,)))).operation, {name})


@pytest.mark.parametrize("name, function", BINARY.items())
def test_class_names_of_keras_ops_of_two_operands(name, function):
    x = keras.Input((4,))
    for y in (function(x, 2.0), function(x, keras.Input((4,)))):
        assert keras_private.is_keras_op(keras_private.producer(y).operation, {name})


def test_every_class_name_in_the_rules_is_tested_here():
    assert Elementwise.names == UNARY.keys()
    assert Scalar.names == BINARY.keys()
    assert (Merge.names | Product.names) - {"CustomScaleLayer"} <= BINARY.keys()
    assert barrier.PRODUCTS == PRODUCTS.keys()


@pytest.mark.slow
def test_class_name_of_the_sum_in_inception_resnet():
    inputs = keras.Input((75, 75, 3))
    model = keras.applications.InceptionResNetV2(weights=None, include_top=False, input_tensor=inputs)
    kinds = [op for op in model.operations if keras_private.is_keras_op(op, {"CustomScaleLayer"})]
    assert len(kinds) == 40


def test_settings_of_keras_ops():
    x = keras.Input((4,))
    relu = keras_private.producer(keras.activations.relu(x, max_value=6.0, threshold=1.0)).operation
    take = keras_private.producer(ops.take(x, [1], axis=-1))
    assert (relu.max_value, relu.threshold) == (6.0, 1.0)
    assert take.operation.axis == -1 and keras_private.arguments(take)[0][1] == [1]
    assert keras_private.producer(ops.concatenate([x, x], axis=1)).operation.axis == 1


@pytest.mark.parametrize("kind", [layers.TextVectorization, layers.StringLookup])
def test_lookup_table_of_text_layers(kind):
    layer = kind(max_tokens=9, output_mode="tf_idf")
    layer.adapt(np.array(["a b", "b c"]))
    assert np.size(keras_private.lookup_table(layer).idf_weights) >= layer.vocabulary_size()


def test_axes_of_attention():
    attention = layers.MultiHeadAttention(2, 4, attention_axes=(2,))
    x = keras.Input((4, 6, 8))
    attention(x, x)
    assert tuple(keras_private.attention_axes(attention)) == (2,)


def test_output_shape_of_a_lambda():
    assert keras_private.lambda_output_shape(layers.Lambda(lambda x: x, output_shape=(3,))) == (3,)


def test_optimizers_keep_a_moment_for_each_variable():
    first, second = keras.Variable(np.zeros(3)), keras.Variable(np.zeros(2))
    adam, sgd = keras.optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75), keras.optimizers.SGD(0.1, 0.5)
    for optimizer in (adam, sgd):
        optimizer.build([first, second])
        optimizer.apply([np.zeros(3, np.float32), np.full(2, 4, np.float32)])
    momentum, velocity = keras_private.adam_moments(adam, second)
    np.testing.assert_allclose(momentum, 2)
    np.testing.assert_allclose(velocity, 4)
    np.testing.assert_allclose(keras_private.sgd_momentum(sgd, second), -0.4, rtol=1e-6)


def test_losses_of_a_layer_are_a_list_that_calls_add_to():
    layer = layers.ActivityRegularization(1.0)
    layer.add_loss(ops.ones(()))
    assert len(keras_private.own_losses(layer)) == 1


def test_sizes_of_einsum_dense_are_known():
    layer, x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 3)), keras.Input((5, 4))
    assert layer(x).shape == (None, None, 3)
    assert keras_private.traced_call(layer, (x,), {}).shape == (None, 5, 3)
    assert "compute_output_spec" not in vars(layer)


class GraphLayers(layers.Layer):
    """Notes the layers in the graph of the pass that it is called in, where Keras does not track them."""

    def call(self, inputs):
        found = keras_private.graph_layers(keras_private.forward_pass())
        object.__setattr__(self, "found", lambda: found)
        return inputs


class OwnCall(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs)


def test_layers_in_the_graph_of_a_pass():
    notes, first, inner = GraphLayers(), layers.Dense(2), layers.Dense(2)
    nested = keras.Sequential([keras.Input((2,)), inner])
    own = OwnCall([keras.Input((2,)), layers.Dense(2)])
    with keras.RematScope(mode="list_of_layers", layer_names=["again"]):
        again = layers.Dense(2, name="again")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, again(own(nested(nested(notes(first(inputs)))))))
    model(np.ones((1, 2), np.float32))
    assert [layer for layer in notes.found() if layer.weights] == [first, inner, own]
    notes(np.ones((1, 2), np.float32))
    assert notes.found() == [notes]


def test_losses_are_copied_with_arguments_that_their_configs_leave_out():
    huber = keras.losses.Huber(delta=0.5)
    copied = keras_private.copied_loss(huber)
    # delta |y - x| - delta^2 / 2
    assert copied is not huber and float(copied([[0.0]], [[3.0]])) == 0.5 * 3 - 0.5**2 / 2
    assert keras_private.loss_settings(huber)["delta"] == 0.5
