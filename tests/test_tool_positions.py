"""prune: examples with weights, masks, ignored classes, and inputs of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy import stats

import keras_sbp as sbp
from keras_sbp.utils.tool import examples, labels, measure, sizes, tasks, warn
from keras_sbp.utils.tool import prune as tool

pytestmark = pytest.mark.usefixtures("no_latency")


class Batches(keras.utils.PyDataset):
    """Batches that are given one by one."""

    def __init__(self, *batches):
        super().__init__()
        self.given = batches

    def __len__(self):
        return len(self.given)

    def __getitem__(self, number):
        return self.given[number]


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_weights_of_a_streams_examples_are_refused_as_those_of_arrays_are(kind):
    parts = np.zeros((6, 4)), np.arange(6) % 2, np.ones(6)
    stream = Batches(parts) if kind == "PyDataset" else tf.data.Dataset.from_tensor_slices(parts).batch(3)
    with pytest.raises(ValueError, match="three parts: .*weights of examples are not taken"):
        examples.part(stream, "data")


def padded(classes, seed=0):
    """Sequences of words with zeros behind, and labels by words: classes, or numbers that are far off where padded."""
    rng = np.random.default_rng(seed)
    x = np.where(np.arange(9) < rng.integers(1, 7, (60, 1)), rng.integers(1, 12, (60, 9)), 0)
    return x, np.where(x == 0, 3, x % 3) if classes else np.where(x == 0, 50.0, x / 5)[..., None]


def tagger(outputs, activation=None):
    embedding = layers.Embedding(12, 8, mask_zero=True)
    return keras.Sequential([keras.Input((9,)), embedding, layers.Dense(16, "relu"), layers.Dense(outputs, activation)])


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), "sparse_categorical_crossentropy"])
def test_masked_positions_do_not_count(loss):
    classes = isinstance(loss, str) and loss.startswith("sparse")
    x, y = padded(classes)
    model = tagger(4, "softmax") if classes else tagger(1)
    model.compile("adam", loss, metrics=["accuracy"] if classes else [], run_eagerly=True)
    part = examples.part((x, y), "data")
    found = model.evaluate(x, y, batch_size=60, verbose=0, return_dict=True)
    wanted = 100 * found["accuracy"] if classes else found["loss"]
    assert tasks.of(model, part).evaluate(model, part).value == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_the_smaller_network_is_judged_with_its_mask():
    (x, y), model = padded(True), tagger(4, "softmax")
    model.compile("adam", "sparse_categorical_crossentropy")
    more = {"test_data": (x, y), "validation_data": (x, y), "epochs": 1, "finetune_epochs": 0, "verbose": 0}
    smaller, report = sbp.prune(model, (x, y), 1.5, **more)
    smaller.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    assert report.after.score == pytest.approx(100 * smaller.evaluate(x, y, verbose=0)[1], rel=1e-4)


def test_masked_labels_are_no_part_of_chance():
    x, y = padded(True)
    part, model = examples.part((x, y), "data"), tagger(4, "softmax")
    task = tasks.of(model, part, "sparse_categorical_crossentropy")
    wanted = np.bincount(y[x > 0])
    assert task.chance(task.evaluate(model, part)) == pytest.approx(100 * wanted.max() / wanted.sum())
    assert np.bincount(y.ravel()).argmax() == 3


def test_the_examples_of_a_score_are_weighted_by_their_positions():
    """Of 1 and 3 positions, none and all right: 3 of 4."""
    model = keras.Sequential(
        [keras.Input((3,)), layers.Embedding(3, 2, "ones", mask_zero=True), layers.Activation("softmax")]
    )
    x, y = np.array([[1, 0, 0], [2, 2, 1]]), np.array([[1, 0, 0], [0, 0, 0]])
    part = examples.part((x, y), "data")
    score = tasks.of(model, part, "sparse_categorical_crossentropy").evaluate(model, part)
    assert score.value == 75 and score.right.tolist() == [0, 1] and score.weights.tolist() == [1, 3]


def any_size():
    convolution = layers.Conv2D(16, 3, padding="same", activation="relu")
    return keras.Sequential(
        [keras.Input((None, None, 3)), convolution, layers.GlobalAveragePooling2D(), layers.Dense(64), layers.Dense(2)]
    )


IMAGES = np.random.default_rng(0).normal(size=(60, 16, 16, 3)).astype(np.float32), np.arange(60) % 2


@pytest.mark.parametrize("is_stream", [False, True])
def test_networks_of_any_size_are_counted_at_that_of_the_examples(is_stream):
    given = tf.data.Dataset.from_tensor_slices(IMAGES).batch(20) if is_stream else IMAGES
    model, part = any_size(), examples.part(given, "test_data")
    sized = sizes.fixed(model, [part])
    assert sbp.multiply_adds(sized) == 16 * 16 * 9 * 3 * 16 + 16 * 64 + 64 * 2
    np.testing.assert_allclose(sized.predict(IMAGES[0], verbose=0), model.predict(IMAGES[0], verbose=0), rtol=1e-5)
    again = sizes.like(sized, model, IMAGES[0])
    assert again.input_shape == (None, None, None, 3)
    other = np.ones((2, 10, 12, 3), np.float32)
    np.testing.assert_allclose(again(other), model(other), rtol=1e-5)


@pytest.mark.parametrize("is_stream", [False, True])
def test_examples_of_several_sizes_are_refused(is_stream):
    small = IMAGES[0][:, :12], IMAGES[1]
    more = {"test_data": small, "validation_data": Batches(IMAGES, small) if is_stream else IMAGES}
    model = any_size()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"examples of \(12, 16, 3\) and of \(16, 16, 3\)") as caught:
        sbp.prune(model, IMAGES, 3, verbose=0, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_target_of_a_network_of_any_size_is_met_at_that_of_the_examples():
    model = any_size()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    smaller, report = sbp.prune(model, IMAGES, 3, epochs=1, finetune_epochs=0, verbose=0)
    kernels = [layer.get_weights()[0].size for layer in smaller.layers if layer.weights]
    assert report.after.macs == 256 * kernels[0] + sum(kernels[1:]) and smaller.input_shape == (None, None, None, 3)
    assert report.ratio == pytest.approx(3, rel=0.1)
    assert report.before.macs == 256 * 9 * 3 * 16 + 16 * 64 + 64 * 2


@pytest.mark.parametrize("ignored", [-1, 255, 2])
def test_the_ignored_class_does_not_count(ignored):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6, 4)).astype(np.float32), rng.integers(0, 3, (50, 6))
    y = np.where(rng.random(y.shape) < 0.5, ignored, y).astype(np.uint8 if ignored == 255 else np.int64)
    model = keras.Sequential([keras.Input((6, 4)), layers.Dense(3)])
    part = examples.part((x, y), "data")
    task = tasks.of(model, part, keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored))
    part = labels.fitted(task, part, (6, 3))
    score, found, kept = task.evaluate(model, part), model.predict(x, verbose=0).argmax(-1), y != ignored
    assert score.value == pytest.approx(100 * np.mean(found[kept] == y[kept]))
    assert task.chance(score) == pytest.approx(100 * np.bincount(y[kept]).max() / kept.sum())
    assert warn._classes(task, part) == set(y[kept].tolist())


@pytest.mark.parametrize("y, message", [([0, -1, 3], "go from 0 to 3"), ([-1, -1, -1], "all labels are the class")])
def test_labels_besides_the_ignored_class_are_checked(y, message):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    part = examples.part((np.zeros((3, 4)), np.array(y)), "data")
    task = tasks.of(model, part, keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    with pytest.raises(ValueError, match=message):
        labels.fitted(task, part, (3,))


def test_a_pydataset_need_not_have_a_length():
    class Counted(keras.utils.PyDataset):
        num_batches = 3

        def __getitem__(self, number):
            return np.full((4, 2), number), np.arange(4)

    part = examples.part(Counted(), "test_data")
    assert part.count == 12 and [x[0, 0] for x, _ in part.batches()] == [0, 1, 2]


@pytest.mark.parametrize("soft", [True, False])
def test_probabilities_are_split_at_random_and_classes_within_each(soft, monkeypatch):
    monkeypatch.setattr(tool._Pruning, "run", lambda call, *given: (call.parts, None))
    x, y = np.zeros((40, 4)), np.random.default_rng(0).random(40) if soft else (np.arange(40) < 4).astype(float)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    parts, _ = sbp.prune(model, (x, y), 2, verbose=0)
    assert (parts.train.count, parts.validation.count, parts.test.count) == ((32, 4, 4) if soft else (31, 4, 5))
    assert soft or all(1 in part.labels() for part in parts[:3])


def test_a_regression_of_two_examples_is_said_to_have_too_few():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"^data has too few examples to be split \(2\)"):
        sbp.prune(model, (np.zeros((2, 4)), np.array([0.1257, 2])), 2, verbose=0)


@pytest.mark.parametrize(
    "count, positive, right",
    [(10, 7, 10), (10, 7, 9), (12, 9, 12), (4, 2, 4), (200, 120, 131), (200, 120, 133), (3, 3, 3)],
)
def test_what_can_be_told_from_chance_is_what_a_binomial_test_says(count, positive, right):
    task = tasks.Task(tasks.BINARY, False, False, "binary_crossentropy", "")
    y = (np.arange(count) < positive)[:, None]
    score = tasks.Score(100 * right / count, np.arange(count) < right, y, np.ones(count))
    found = stats.binomtest(right, count, max(positive, count - positive) / count, alternative="greater").pvalue
    assert task.is_at_chance(score) == (found > 0.05) == bool(warn.of_score(task, score))
    assert all(f"from chance on {count} test examples" in text for text in warn.of_score(task, score))


def test_batches_padded_to_several_lengths_are_refused_in_a_line():
    lengths = [(3, 5), (4, 2)]
    stream = tf.data.Dataset.from_generator(
        lambda: ((np.ones(length, int), np.ones(length, int)) for pair in lengths for length in pair),
        output_signature=(tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.int64)),
    ).padded_batch(2)
    model = keras.Sequential(
        [keras.Input((None,)), layers.Embedding(12, 8, mask_zero=True), layers.Dense(4, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"examples of \(4,\) and of \(5,\): pad, crop or resize") as caught:
        sbp.prune(model, stream, 2, validation_data=stream, verbose=0)
    assert "\n" not in str(caught.value)


def test_scores_take_batches_of_several_lengths():
    x, y = padded(True)
    model = keras.Sequential([keras.Input((None,)), *tagger(4, "softmax").layers])
    whole, batches = examples.part((x, y), "data"), [(x[:20, :6], y[:20, :6]), (x[20:], y[20:])]
    task = tasks.of(model, whole, "sparse_categorical_crossentropy")
    scores = [task.evaluate(model, part) for part in (whole, examples.part(Batches(*batches), "data"))]
    assert scores[0].value == pytest.approx(scores[1].value) and task.chance(scores[0]) == task.chance(scores[1])


@pytest.mark.parametrize("verbose", [0, 1])
def test_the_counting_of_a_stream_of_unknown_length_is_shown(verbose, monkeypatch, capsys):
    monkeypatch.setattr(examples, "SHOWN_AFTER", 0)
    stream = tf.data.Dataset.from_tensor_slices((np.zeros((9, 2)), np.zeros(9))).batch(3).filter(lambda x, y: True)
    assert examples.part(stream, "test_data", verbose=verbose).count == 9
    assert ("counting the batches of test_data, which needs an end" in capsys.readouterr().err) == bool(verbose)


def test_the_margin_weights_examples_by_their_positions():
    """By the variance of a weighted mean; an example without positions changes nothing."""
    rng = np.random.default_rng(0)
    before, after = rng.random((2, 50))
    weights = np.arange(50) % 3

    def margin(*columns):
        return measure._margin(*(tasks.Score(0.0, right, np.zeros(1), columns[-1]) for right in columns[:-1]))

    kept = weights > 0
    difference, shares = (before - after)[kept], weights[kept] / weights.sum()
    center = np.sum(shares * difference)
    expected = 196 * np.sqrt(np.sum(shares**2 * (difference - center) ** 2))
    assert margin(before, after, weights) == pytest.approx(expected)
    assert margin(before, after, None) == pytest.approx(196 * np.std(before - after) / np.sqrt(50))
