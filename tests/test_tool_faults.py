"""prune: what people found that was wrong, silent or a traceback."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_sbp as sbp
from keras_sbp.utils.deployment import runtimes
from keras_sbp.utils.tool import examples, measure, tasks, warn
from tests.support.digits import dense, digits, train

pytestmark = pytest.mark.usefixtures("no_latency")

QUICK = {"epochs": 4, "finetune_epochs": 1, "verbose": 0}
SPARSE = keras.losses.SparseCategoricalCrossentropy


@pytest.fixture(scope="module")
def trained():
    return train(dense(), SPARSE(from_logits=True), *digits())


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """The directory and the report of a run on 200 digits."""
    keras.utils.set_random_seed(0)
    directory = tmp_path_factory.mktemp("finished")
    return directory, sbp.prune(trained, tuple(part[:200] for part in digits()), 2, directory=directory, **QUICK)[1]


@pytest.mark.parametrize("loss", ["binary_crossentropy", None])
def test_outputs_of_one_number_for_each_example_without_an_axis_of_units(loss):
    x = np.random.default_rng(0).normal(size=(60, 8))
    y, inputs = x[:, 0] > 0, keras.Input((8,))
    found = []
    for flat in (False, True):
        outputs = layers.Dense(1, "sigmoid", kernel_initializer="ones")(inputs)
        model = keras.Model(inputs, keras.ops.squeeze(outputs, -1) if flat else outputs)
        part = examples.part((x, y.astype(np.float32)), "data")
        task = tasks.of(model, part, loss)
        found.append((task.kind, task.logits, task.evaluate(model, part).value))
    assert found[0] == found[1] and found[0][0] == tasks.BINARY
    assert found[0][2] == pytest.approx(100 * np.mean((x.sum(1) > 0) == y), abs=1e-4)


def test_a_loss_without_a_mean_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)])
    model.compile("adam", keras.losses.MeanSquaredError(reduction="none"))
    x, y = np.zeros((30, 4)), np.full((30, 1), 0.5)
    with pytest.raises(ValueError, match="mean_squared_error has reduction='none': give loss="):
        sbp.prune(model, (x, y), 2, **QUICK)

    class Own(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred))

    assert tasks.of(model, examples.part((x, y), "data"), Own(reduction=None)).kind == tasks.REGRESSION


@pytest.mark.parametrize(
    "before, after, drop", [(2, 3, 50), (-0.5, -0.4, 20), (-0.5, -0.6, -20), (0, 0, 0), (0, 1, np.inf)]
)
def test_a_loss_that_is_negative_or_zero_gets_worse_as_it_grows(before, after, drop):
    regression = tasks.Task(tasks.REGRESSION, False, False, "mse", "")
    assert regression.drop(before, after) == pytest.approx(drop)


def another(kind, model, x, y):
    """The same call but for one thing."""
    if kind == "activation":
        other = keras.Sequential(
            [keras.Input((64,)), layers.Dense(48, "tanh"), layers.Dense(32, "tanh"), layers.Dense(10)]
        )
        other.set_weights(model.get_weights())
        return other, (x, y), {}
    if kind == "loss":
        return model, (x, y), {"loss": SPARSE(from_logits=True, ignore_class=9)}
    if kind == "trainable":
        other = keras.models.clone_model(model)
        other.set_weights(model.get_weights())
        other.layers[0].trainable = False
        return other, (x, y), {"loss": SPARSE(from_logits=True)}
    x = x.copy()
    x[1, 1] += 1
    return model, (x, y), {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["activation", "loss", "trainable", "one number"])
def test_a_directory_is_of_one_model_loss_and_data(kind, trained, finished):
    (x, y), (directory, _) = digits(), finished
    model, data, more = another(kind, trained, x[:200], y[:200])
    with pytest.raises(ValueError, match="holds a run with another"):
        sbp.prune(model, data, 2, directory=directory, **QUICK, **more)


@pytest.mark.slow
def test_a_model_built_again_under_other_names_continues(trained, finished):
    (x, y), (directory, report) = digits(), finished
    again = keras.models.clone_model(trained, clone_function=lambda layer: renamed(layer))
    again.set_weights(trained.get_weights())
    more = {"directory": directory, "loss": SPARSE(from_logits=True)}
    _, same = sbp.prune(again, (x[:200], y[:200]), 2, **more, **QUICK)
    assert same.after.score == report.after.score


def renamed(layer):
    return type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_again"})


def test_the_examples_of_a_stream_are_counted():
    x, y = digits()
    stream = tf.data.Dataset.from_tensor_slices((x[:70], y[:70])).batch(64)
    assert examples.part(stream, "test_data").count == 70
    with pytest.raises(ValueError, match="not finite"):
        bad = np.where(np.arange(70)[:, None] == 69, np.nan, x[:70])
        examples.part(tf.data.Dataset.from_tensor_slices((bad, y[:70])).batch(64), "test_data")


def test_a_bad_batch_of_a_stream_is_said_to_be_one(trained):
    x, y = digits()
    wrong = np.where(np.arange(200) > 190, 17, y[:200])
    stream = tf.data.Dataset.from_tensor_slices((x[:200], wrong)).batch(50)
    with pytest.raises(ValueError, match="like the first"):
        sbp.prune(trained, stream, 2, validation_data=(x[200:], y[200:]), **QUICK)


def test_nothing_to_remove_is_refused_whatever_is_asked():
    x, y = digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(1), layers.Dense(10)])
    model.compile("adam", SPARSE(from_logits=True))
    with pytest.raises(ValueError, match="one unit each"):
        sbp.prune(model, (x, y), max_drop=50, **QUICK)


@pytest.mark.slow
def test_all_labels_the_same_are_warned_of(trained):
    x, _ = digits()
    _, report = sbp.prune(trained, (x, np.zeros(len(x), int)), 2, **QUICK)
    assert any("all labels are the same" in warning for warning in report.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0, -1, 0.5, float("nan"), "3", 1e9])
def test_a_point_that_is_none_is_refused(target, finished):
    with pytest.raises(ValueError, match="target="):
        sbp.tradeoff(finished[0]).shrink(target)


def test_a_tradeoff_without_its_network_is_refused(tmp_path):
    (tmp_path / "report.json").write_text('{"metric": "Loss", "before": {"macs": 9}, "tradeoff": []}')
    with pytest.raises(ValueError, match="has no noisy.keras.*: make the call of prune again"):
        sbp.tradeoff(tmp_path)
    (tmp_path / "noisy.keras").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot read .*noisy.keras"):
        sbp.tradeoff(tmp_path)


@pytest.mark.parametrize("kind", ["weights", "nested lists", "exclude", "no rate", "empty"])
def test_arguments_that_make_no_sense_are_refused_in_a_line(kind, trained):
    (x, y), more = digits(), {}
    data = (x, y)
    if kind == "weights":
        data = (x, y, y)
    elif kind == "nested lists":
        data = (x.tolist(), y.tolist())
    elif kind == "empty":
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(50).take(0)
    else:
        more = {"exclude": [trained.layers[0]]} if kind == "exclude" else {"learning_rate": "fast"}
    wanted = {
        "weights": "weights of examples", "nested lists": "np.asarray", "exclude": "list of names",
        "no rate": "a number from 0", "empty": "no examples",
    }  # fmt: skip
    with pytest.raises(ValueError, match=wanted[kind]) as caught:
        sbp.prune(trained, data, 2, **QUICK, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_network_with_dead_units_is_pruned(trained):
    """Padded by units of zeros, as this tool's own --multiple_of leaves it."""
    padded = train(dense(), SPARSE(from_logits=True), *digits(), epochs=0)
    first, second, last = (layer.get_weights() for layer in padded.layers)
    for array in (*first, second[0].T):
        array[..., :8] = 0
    for layer, weights in zip(padded.layers, (first, second, last)):
        layer.set_weights(weights)
    smaller, _ = sbp.prune(padded, tuple(part[:200] for part in digits()), 2, **QUICK)
    live = 64 * 40 + 40 * 32 + 32 * 10
    assert live / sbp.multiply_adds(smaller) == pytest.approx(2, rel=0.05)


@pytest.mark.slow
def test_labels_for_each_position_are_not_taken_for_one_hot_classes():
    x, y = np.random.default_rng(0).normal(size=(60, 5, 8)), np.random.default_rng(1).integers(0, 6, (60, 5))
    y[:, 0], y[0] = 6, [0, 6, 0, 0, 0]  # the largest tag is at the second position of one example only
    tagger = keras.Sequential([keras.Input((5, 8)), layers.Dense(16, "relu"), layers.Dense(7, "softmax")])
    tagger.compile("sgd", "sparse_categorical_crossentropy")
    _, report = sbp.prune(tagger, (x, y), 1.5, **QUICK)
    assert report.before.macs / report.after.macs == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("given, least", [({}, 3), ({"test": True}, 2)])
def test_a_class_needs_an_example_for_each_part(given, least):
    y = np.array([0] * 20 + [1] * least)
    x = np.zeros((len(y), 1))
    whole = examples.part((x, y), "data")
    parts = examples.split(whole, None, whole if given else None, 0, stratified=True)
    assert 1 in parts.train.labels() and 1 in parts.validation.labels()
    fewer = whole._replace(indices=whole.indices[:-1])
    with pytest.raises(ValueError, match=f"give {least} or more"):
        examples.split(fewer, None, whole if given else None, 0, stratified=True)


@pytest.mark.slow
def test_the_current_directory_may_be_the_runs(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sbp.prune(trained, tuple(part[:200] for part in digits()), 2, directory=".", **QUICK)
    assert (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_a_stream_that_shuffles_anew_goes_on_in_its_directory(trained, tmp_path):
    (x, y) = (part[:200] for part in digits())
    stream = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(200).batch(50)
    more = {"directory": tmp_path / "run", "validation_data": (x, y), **QUICK}
    sbp.prune(trained, stream, 2, **more)
    _, report = sbp.prune(trained, stream, 3, **more)
    assert report.before.macs / report.after.macs == pytest.approx(3, rel=0.05)


@pytest.mark.slow
def test_a_directory_knows_what_was_trained_on(trained, tmp_path):
    """The same arrays and as many steps, but none of them held out the first time."""
    data = tuple(part[:70] for part in digits())
    more = {"directory": tmp_path / "run", "batch_size": 32, **QUICK}
    sbp.prune(trained, data, 2, validation_data=data, test_data=data, **more)
    with pytest.raises(ValueError, match="another data"):
        sbp.prune(trained, data, 2, test_data=data, **more)


def test_a_loss_by_name_goes_with_logits():
    x, y = digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10)])
    task = tasks.of(model, examples.part((x, y), "data"), "sparse_categorical_crossentropy")
    assert task.logits and task.loss.from_logits


@pytest.mark.slow
def test_networks_of_inputs_of_any_size_are_timed():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    runtimes.LiteRT(1).runner(model, np.zeros((1, 1, 16, 16, 3), np.float32))(1)


@pytest.mark.slow
def test_another_target_of_a_network_with_a_lambda(tmp_path):
    """Keras reads no file with one, but only the weights are needed."""
    x, y = (part[:200] for part in digits())
    doubled = layers.Lambda(lambda x: 2 * x)
    model = keras.Sequential([keras.Input((64,)), doubled, layers.Dense(24, "relu"), layers.Dense(10)])
    model.compile(loss=SPARSE(from_logits=True))
    for target in (2, 3):
        _, report = sbp.prune(model, (x, y), target, directory=tmp_path / "run", **QUICK)
        assert report.before.macs / report.after.macs == pytest.approx(target, rel=0.1)


def two_inputs(struct):
    """The first input by name is not the first of the model: it takes bytes, the other one numbers around 0."""
    image, number = keras.Input((8,), name="image"), keras.Input((2,), name="age")
    x = layers.Concatenate()([layers.Rescaling(1 / 255)(image), layers.Rescaling(1.0)(number)])
    inputs = struct(image=image, age=number) if struct is dict else [image, number]
    return keras.Model(inputs, layers.Dense(1)(x))


@pytest.mark.parametrize("struct", [list, dict])
def test_the_arrays_of_a_dict_are_those_of_the_inputs_of_their_names(struct):
    model, rng = two_inputs(struct), np.random.default_rng(0)
    x = {"image": rng.integers(0, 256, (40, 8)).astype(np.uint8), "age": rng.normal(size=(40, 2))}
    part = examples.part((x, rng.normal(size=40)), "data")
    assert warn.of_data(model, examples.Parts(part, part, part, ())) == []
    swapped = examples.part(({"image": x["age"], "age": x["image"]}, part.y), "data")
    with pytest.raises(ValueError, match=r"reads examples of .*: bring x to that shape") as raised:
        tasks.of(model, swapped)
    wanted, given = (found.split("), (") for found in str(raised.value).split(" of ")[1].split(", and x has "))
    assert len(wanted) == len(given) == 2 and wanted[0].strip("(,") == given[1].split(")")[0].strip(",")


def test_the_latency_is_that_of_an_example_of_the_input_whose_name_a_dict_has():
    image = keras.Input((8,), name="image")
    x = {"age": np.zeros((3, 2)), "image": np.ones((3, 8))}
    part = examples.part((x, np.zeros(3)), "data")
    example = examples.example(keras.Model(image, layers.Dense(1)(image)), part)
    np.testing.assert_array_equal(example, np.ones((1, 8)))


def test_the_margin_of_shuffled_examples_is_that_of_two_samples():
    """Of 0.5 right among 400 each: the standard error of the difference is sqrt(2 * 0.25 / 400)."""
    labels, right = np.arange(400), np.tile([0.0, 1.0], 200)
    one, shuffled = tasks.Score(50.0, right, labels), tasks.Score(50.0, right[::-1], labels[::-1])
    assert measure._margin(one, one) == 0
    assert measure._margin(one, shuffled) == pytest.approx(196 * (0.5 / 400) ** 0.5)
