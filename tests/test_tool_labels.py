"""Labels of every form that people have, and streams of examples."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.utils.tool import examples, labels, tasks
from tests.support.digits import dense

pytestmark = pytest.mark.usefixtures("no_latency")

X = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
NUMBERS = np.array([0, 2, 1, 2, 0, 1])
ONE_HOT = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32)
SPARSE, CATEGORICAL = "sparse_categorical_crossentropy", "categorical_crossentropy"


def fitted(y, outputs, loss, x=X):
    part = examples.part((x, y), "data")
    task = tasks.of(dense(outputs), part, loss)
    return task, labels.fitted(task, part, (outputs,))


@pytest.mark.parametrize("loss, wanted", [(SPARSE, NUMBERS), (CATEGORICAL, ONE_HOT)])
@pytest.mark.parametrize("given", [NUMBERS, NUMBERS[:, None], NUMBERS.astype(float), ONE_HOT, ONE_HOT.astype(bool)])
def test_class_numbers_and_one_hot_labels_go_with_either_loss(given, loss, wanted):
    _, part = fitted(given, 3, loss)
    np.testing.assert_array_equal(part.y.reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    "y, outputs, loss, message",
    [
        (NUMBERS + 1, 3, SPARSE, "knows classes 0 to 2, and the labels go from 1 to 3"),
        (NUMBERS + 0.5, 3, SPARSE, "whole numbers"),
        (NUMBERS[:, None] * [1, 1], 3, SPARSE, "a class per output"),
        (1 + NUMBERS % 2, 1, "binary_crossentropy", "go.* from 1 to 2"),
        (NUMBERS % 2, 2, "binary_crossentropy", "one per output"),
        (ONE_HOT, 2, "mse", "one per output"),
    ],
)
def test_labels_that_no_output_is_for_are_refused(y, outputs, loss, message):
    with pytest.raises(ValueError, match=message):
        fitted(y, outputs, loss)


@pytest.mark.parametrize("y", [NUMBERS % 2, 2 * (NUMBERS % 2) - 1])
def test_the_sign_of_an_output_decides_with_a_hinge_loss(y):
    task, part = fitted(y, 1, "hinge")
    model = dense(1)
    positive = np.asarray(model(X))[:, 0] > 0
    assert task.evaluate(model, part).value == pytest.approx(100 * np.mean(positive == (y > 0)))


def test_several_inputs_may_be_a_list():
    part = examples.part(([X, X[:, :3]], NUMBERS), "data")
    x, y = part.shuffled(2, 0)[0]
    assert isinstance(x, tuple) and [each.shape for each in x] == [(2, 64), (2, 3)] and y.shape == (2,)


def batches(y, size=2):
    return tf.data.Dataset.from_generator(
        lambda: ((X[i : i + size], y[i : i + size]) for i in range(0, 6, size)),
        output_signature=(tf.TensorSpec((None, 64)), tf.TensorSpec((None, *y.shape[1:]), y.dtype)),
    )


def test_a_stream_of_unknown_length_is_counted():
    stream = examples.part(batches(NUMBERS), "data")
    assert stream.count == 6 and int(stream.dataset.cardinality()) == 3


def test_a_stream_is_not_converted():
    part = examples.part(batches(ONE_HOT), "data")
    task = tasks.of(dense(3), part, SPARSE)
    with pytest.raises(ValueError, match="takes class numbers, and the stream yields one-hot labels"):
        labels.fitted(task, part, (3,))


def test_a_model_whose_loss_is_given_by_the_name_of_its_output():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="out")(inputs))
    model.compile("sgd", {"out": SPARSE})
    assert tasks.of(model, examples.part((X, NUMBERS), "data")).kind == tasks.CLASSES
