"""prune: from a model, data and a target to a smaller model and a report, for every kind of task."""

import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_sbp as sbp
from keras_sbp.utils.tool import examples, latency, training
from tests.support.digits import dense, digits, train
from tests.test_counting import Loop

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
QUICK = {"epochs": 8, "finetune_epochs": 2, "verbose": 0}


@pytest.fixture(scope="module")
def trained():
    x, y = digits()
    return train(dense(), SPARSE, x, y)


@pytest.fixture(autouse=True)
def no_latency(request, monkeypatch):
    """Most tests do not measure any."""
    if "latency" not in request.node.name:
        monkeypatch.setattr(latency, "milliseconds", lambda models, x: [1.0] * len(models))


def macs(*widths):
    return sum(first * second for first, second in zip(widths, widths[1:]))


def test_the_target_is_met_and_the_report_says_what_was_done(trained, tmp_path):
    x, y = digits()
    weights = trained.get_weights()
    smaller, report = sbp.prune(trained, (x, y), 3, directory=tmp_path / "run", **QUICK)
    widths = [64, *(layer.units for layer in smaller.layers if isinstance(layer, layers.Dense))]
    assert report.before.macs == macs(64, 48, 32, 10) and report.after.macs <= macs(*widths)
    assert report.ratio == pytest.approx(3, rel=0.05) == report.before.macs / sbp.multiply_adds(smaller)
    assert report.after.score > 85 and report.examples["test"] == pytest.approx(180, abs=10)
    assert [(unit.layer, unit.before, unit.reason) for unit in report.units] == [
        ("first", 48, ""),
        ("second", 32, ""),
        ("last", 10, "output of the network"),
    ]
    assert all(np.array_equal(old, new) for old, new in zip(weights, trained.get_weights()))
    assert all(type(op).__module__.startswith("keras.") for op in smaller.operations)
    saved = json.loads((tmp_path / "run/report.json").read_text())
    assert saved["after"]["macs"] == report.after.macs and saved["macs_ratio"] == report.ratio
    assert (tmp_path / "run/report.png").stat().st_size > 10_000 and f"{report.ratio:.2f}x" in str(report)
    # The first point of the trade-off is the whole network, and the MACs fall from there.
    found = [point.macs for point in report.tradeoff]
    assert found[0] == report.before.macs and found == sorted(found, reverse=True) and found[-1] < found[0] / 5


@pytest.mark.slow
def test_another_target_comes_from_the_same_training(trained, tmp_path):
    x, y = digits()
    sbp.prune(trained, (x, y), 2, directory=tmp_path / "run", **QUICK)
    stamp = (tmp_path / "run/noisy.keras").stat().st_mtime_ns
    _, report = sbp.prune(trained, (x, y), 4, directory=tmp_path / "run", **QUICK)
    assert report.ratio == pytest.approx(4, rel=0.05)
    assert (tmp_path / "run/noisy.keras").stat().st_mtime_ns == stamp
    curve = sbp.tradeoff(tmp_path / "run")
    assert sbp.multiply_adds(curve.shrink(5)) == pytest.approx(macs(64, 48, 32, 10) / 5, rel=0.05)
    assert "Accuracy" in str(curve) and curve.plot()
    with pytest.raises(ValueError, match="another data and seed"):
        sbp.prune(trained, (x, y), 4, directory=tmp_path / "run", seed=1, **QUICK)


@pytest.mark.slow
def test_the_same_call_gives_the_same_network(trained):
    x, y = digits()
    one, other = (sbp.prune(trained, (x, y), 3, **QUICK)[0].get_weights() for _ in range(2))
    assert all(np.array_equal(first, second) for first, second in zip(one, other))


@pytest.mark.slow
def test_at_most_the_points_asked_for_are_lost_on_the_validation_data_or_the_report_says_so():
    x, y = digits()
    model = train(dense(), SPARSE, x[:1000], y[:1000])
    held_out = {"validation_data": (x[1000:1400], y[1000:1400]), "test_data": (x[1400:], y[1400:])}
    settings = QUICK | held_out | {"epochs": 20, "finetune_epochs": 6}
    _, report = sbp.prune(model, (x[:1000], y[:1000]), max_drop=4, **settings)
    held = float(report.target["reached"].split()[0]) <= 4
    assert held and report.ratio > 1.5 or any("no smaller network" in warning for warning in report.warnings)


@pytest.mark.slow
def test_the_network_stays_as_it_is_if_every_smaller_one_loses_too_much():
    x, y = digits()
    model = train(dense(), SPARSE, x, y)
    destructive = QUICK | {"learning_rate": 10.0, "finetune_epochs": 0}
    same, report = sbp.prune(model, (x, y), max_drop=0, **destructive)
    assert any("no smaller network loses at most 0" in warning for warning in report.warnings)
    np.testing.assert_allclose(same.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-4)
    assert report.ratio == 1 and report.after.score == report.before.score


@pytest.mark.slow
def test_a_latency_is_met(monkeypatch):
    """On a machine on which a network of a million MACs takes a second."""
    x, y = digits()

    def milliseconds(models, x):
        return [sbp.multiply_adds(model) / 1000 for model in models]

    monkeypatch.setattr(latency, "milliseconds", milliseconds)
    wide = keras.Sequential([keras.Input((64,)), *(layers.Dense(512, "relu") for _ in range(2)), layers.Dense(10)])
    train(wide, SPARSE, x, y, 2)
    _, report = sbp.prune(wide, (x, y), target_latency="3x", **QUICK)
    assert report.before.latency / report.after.latency == pytest.approx(3, rel=0.1)
    assert report.ratio == pytest.approx(report.before.latency / report.after.latency)


FLOATS, BYTES = (digits()[0], None), ((255 * digits()[0]).astype(np.uint8), 1 / 255)
ONE_HOT = np.eye(10)[digits()[1]]


def focal(y, logits):
    return keras.losses.categorical_focal_crossentropy(
        keras.ops.one_hot(keras.ops.cast(y, "int32"), 10), logits, from_logits=True
    )


TASKS = {
    "softmax": (FLOATS, digits()[1], 10, "softmax", "sparse_categorical_crossentropy", "Accuracy, %", 85),
    "one-hot": (FLOATS, ONE_HOT, 10, "softmax", "categorical_crossentropy", "Accuracy, %", 85),
    "bytes": (BYTES, digits()[1], 10, None, SPARSE, "Accuracy, %", 85),
    "column": (FLOATS, digits()[1][:, None], 10, None, SPARSE, "Accuracy, %", 85),
    "one sigmoid": (FLOATS, digits()[1] % 2, 1, "sigmoid", "binary_crossentropy", "Accuracy, %", 85),
    "one logit": (FLOATS, digits()[1] % 2, 1, None, keras.losses.BinaryCrossentropy(True), "Accuracy, %", 85),
    "several labels": (
        FLOATS, np.stack([digits()[1] % 2, digits()[1] > 4], 1), 2, "sigmoid", "binary_crossentropy",
        "Labels right, %", 85,
    ),
    "own loss": (FLOATS, digits()[1], 10, None, focal, "Accuracy, %", 85),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_the_task_is_as_the_model_was_compiled(kind):
    (x, rescaling), y, outputs, activation, loss, metric, accuracy = TASKS[kind]
    model = train(dense(outputs, activation, rescaling), loss, x, y)
    smaller, report = sbp.prune(model, (x, y), 3, **QUICK)
    assert report.metric == metric and report.ratio == pytest.approx(3, rel=0.05)
    assert report.after.score > accuracy and report.before.score > accuracy
    assert "as compiled" in report.task


@pytest.mark.slow
def test_a_regression_is_judged_by_its_loss():
    x, y = digits()
    # Whole numbers, which are no classes: some are there only once.
    target = np.rint(8 * x @ np.random.default_rng(0).normal(size=64))
    model = train(dense(1), "mse", x, target, 20)
    _, report = sbp.prune(model, (x, target), 2, **QUICK)
    assert report.metric == "Loss" and report.after.score < np.var(target) / 2 and report.margin is None


@pytest.mark.slow
def test_a_model_that_is_not_compiled_is_judged_by_its_outputs(trained):
    x, y = digits()
    model = keras.Sequential.from_config(trained.get_config())
    model.set_weights(trained.get_weights())
    _, report = sbp.prune(model, (x, y), 2, **QUICK)
    assert report.task == "classes, guessed from outputs and labels" and report.after.score > 85


@pytest.mark.slow
def test_fine_tuning_after_rescaling_loses_nothing():
    """Folded into the first layer, Rescaling(1 / 255) leaves weights that Adam's steps would wreck."""
    x, y = digits()
    x = (255 * x).astype(np.uint8)
    model = train(dense(10, None, 1 / 255), SPARSE, x, y)
    scores = [sbp.prune(model, (x, y), 2, **QUICK | {"finetune_epochs": count})[1].after.score for count in (0, 4)]
    assert scores[1] >= scores[0] - 1 and scores[1] > 90


@pytest.mark.slow
def test_labels_that_are_sorted_are_split_within_each_class(trained):
    x, y = digits()
    order = np.argsort(y, kind="stable")
    _, report = sbp.prune(trained, (x[order], y[order]), 2, **QUICK)
    assert report.after.score > 85


@pytest.mark.slow
def test_streams_that_are_larger_than_memory(trained):
    x, y = digits()

    class Halves(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, number):
            return x[50 * number : 50 * (number + 1)], y[50 * number : 50 * (number + 1)]

    validation = tf.data.Dataset.from_tensor_slices((x[1000:1400], y[1000:1400])).batch(100)
    for data in (Halves(), tf.data.Dataset.from_tensor_slices((x[:1000], y[:1000])).shuffle(1000, 0).batch(50)):
        _, report = sbp.prune(trained, data, 2, validation_data=validation, test_data=(x[1400:], y[1400:]), **QUICK)
        assert report.examples == {"train": 1000, "validation": 400, "test": 397} and report.after.score > 80
    with pytest.raises(ValueError, match="cannot be split"):
        sbp.prune(trained, Halves(), 2, **QUICK)


@pytest.mark.slow
def test_the_control_is_the_network_trained_without_noise_for_as_long(trained):
    x, y = digits()
    _, report = sbp.prune(trained, (x, y), 2, control=True, **QUICK)
    assert report.control.macs == report.before.macs and report.control.score > 90 and "no noise" in str(report)


def refused(kind):
    """Arguments of prune that it refuses, and what it says."""
    x, y = digits()
    model, more, data = dense(), {"target": 2}, (x, y)
    if kind == "nothing to prune":
        inputs = keras.Input((8, 8))
        # Without a rule: both directions and their states, merged by a product.
        layer = layers.Bidirectional(layers.LSTM(6, return_state=True), merge_mode="mul", name="lstm")
        *_, last = layer(inputs)
        model = keras.Model(inputs, layers.Dense(10, name="last")(last))
        data = x.reshape(-1, 8, 8), y
    elif kind == "everything excluded":
        more["exclude"] = ["first", "second"]
    elif kind == "no test example of a class":
        more["test_data"] = x[y < 9], y[y < 9]
        more["validation_data"] = x[:100], y[:100]
    elif kind == "one example of a class":
        keep = (y < 9) | (np.cumsum(y == 9) == 1)
        data = x[keep], y[keep]
    elif kind == "out of reach":
        more["target"] = 10_000
    elif kind == "two targets":
        more["max_drop"] = 1
    elif kind == "a target of one":
        more["target"] = 1
    elif kind == "more classes":
        model = dense(5)
    elif kind == "other shape":
        data = x[:, :50], y
    elif kind == "other count":
        data = x[1:], y
    elif kind == "not finite":
        data = np.where(x > 0.9, np.nan, x), y
    elif kind == "two outputs":
        inputs = keras.Input((64,))
        model = keras.Model(inputs, [layers.Dense(10)(inputs), layers.Dense(10)(inputs)])
    elif kind == "no layer of that name":
        more["exclude"] = ["nowhere"]
    elif kind == "noise already":
        model = sbp.insert(model, 1e-3)
    elif kind == "no tuple":
        data = x
    elif kind == "text":
        data = x, y.astype(str)
    elif kind == "no examples":
        data = x[:0], y[:0]
    elif kind == "a subclass":
        model = type("Own", (keras.Model,), {})()
    elif kind == "a subclass that trains otherwise":
        model = type("Own", (keras.Model,), {"call": lambda self, x: x, "train_step": lambda self, data: {}})()
    elif kind == "not built":
        model = keras.Sequential([layers.Dense(10)])
    elif kind == "a path":
        model = "model.keras"
    elif kind == "one name":
        more["exclude"] = "first"
    elif kind == "no loss":
        more["loss"] = "crossentropy"
    elif "=" in kind:
        name, value = kind.split("=")
        more[name] = int(value) if value.strip("-").isdigit() else float(value)
    elif kind == "batch":
        more["batch_size"] = 10_000
    return model, data, more


REFUSED = {
    "nothing to prune": "nothing can be removed.*lstm: ", "everything excluded": "first: excluded",
    "no test example of a class": "no example of class 9", "one example of a class": "class 9 has too few examples",
    "out of reach": "cannot be reached", "two targets": "give one of", "a target of one": "a number above 1",
    "more classes": "knows classes 0 to 4", "other shape": "bring x to that shape",
    "other count": "one label per example",
    "not finite": "not finite", "two outputs": "2 outputs", "no layer of that name": "nowhere",
    "text": "not of text", "no examples": "has no examples", "a subclass": "is not built: call it on data",
    "a subclass that trains otherwise": "has its own call and its own train_step", "not built": "has no graph",
    "a path": "give a keras.Model", "one name": "give a list", "no loss": "keras.losses has no crossentropy",
    "epochs=0": "whole number from 1", "epochs=1.5": "whole number from 1", "finetune_epochs=-1": "number from 0",
    "batch_size=0": "whole number from 1", "seed=-1": "whole number from 0", "learning_rate=-1": "number from 0",
    "noise_learning_rate=nan": "number from 0",
    "noise already": "has noise layers already", "no tuple": r"give \(x, y\)", "batch": "use a smaller value",
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_before_training(kind, monkeypatch):
    monkeypatch.setattr(training.Trainer, "with_noise", None)
    model, data, more = refused(kind)
    with pytest.raises(ValueError, match=REFUSED[kind]) as raised:
        sbp.prune(model, data, **more)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.slow
def test_what_is_suspicious_is_said_before_training(capsys):
    x, y = digits()
    _, report = sbp.prune(dense(10, None, 1 / 255), (x, y), 2, epochs=1, finetune_epochs=0)
    said = capsys.readouterr().err
    for text in (
        "x goes from 0 to 1",
        "too few to tell units apart well: epochs=",
        "the network as given cannot be told from chance",
    ):
        assert text in said and sum(text in warning for warning in report.warnings) == 1


@pytest.mark.slow
def test_a_network_that_is_pruned_to_nothing_is_not_usable(trained):
    """One unit per layer or two, and weights that such a rate leaves at random."""
    x, y = digits()
    _, report = sbp.prune(trained, (x, y), 35, learning_rate=1.0, **QUICK | {"epochs": 1, "finetune_epochs": 0})
    assert not report.usable and "too much was removed" in str(report)


@pytest.mark.slow
def test_layers_that_are_not_counted_are_named_instead_of_a_ratio():
    x, y = digits()

    inputs = keras.Input((64,))
    hidden = layers.Dense(32, activation="relu")(Loop(name="own", trainable=False)(inputs))
    model = train(keras.Model(inputs, layers.Dense(10)(hidden)), SPARSE, x, y)
    _, report = sbp.prune(model, (x, y), 1.5, **QUICK)
    assert report.ratio is None and report.uncounted == ["Loop"] and "not counted: Loop" in str(report)
    (own,) = [unit for unit in report.units if unit.layer == "own"]
    assert (own.before, own.after) == (64, 64) and own.reason.startswith("cannot be opened: A symbolic KerasTensor")


class Own(keras.Model):
    """A subclass with a call of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(20, "relu"), layers.Dense(10)

    def call(self, x):
        return self.second(self.first(layers.Flatten()(x)))


@pytest.mark.slow
def test_a_subclass_is_pruned_and_stays_as_it_is():
    (x, y), model = digits(), Own()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(x[:2])
    before = model.get_weights()
    smaller, _ = sbp.prune(model, (x, y), 2, epochs=1, finetune_epochs=0, verbose=0)
    assert 1.5 * smaller.count_params() < model.count_params() and smaller.output_shape == (None, 10)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.slow
@pytest.mark.parametrize("build", [dense, Own])
def test_a_loss_that_only_runs_eagerly_is_trained_with(build):
    def squares(y, outputs):
        given = np.asarray(y)  # which nothing in a graph has
        return keras.ops.mean((outputs - given) ** 2, -1)

    (x, _), model = digits(), build()
    model(x[:2])
    model.compile("sgd", squares, run_eagerly=True)
    _, report = sbp.prune(model, (x[:200], x[:200, :10]), 2, epochs=1, finetune_epochs=0, verbose=0)
    assert report.metric == "Loss" and np.isfinite(report.after.score)


def test_the_callers_random_numbers_stay(trained):
    np.random.seed(5)
    random.seed(5)
    states = np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(ValueError, match="labels"):
        sbp.prune(trained, (np.zeros((20, 64)), np.zeros(10)), target=3)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("batch_size, at_once", [(4, 16), (None, 256), (500, 256)])
def test_small_batches_are_evaluated_in_small_ones(batch_size, at_once):
    part = examples.part((np.zeros((1000, 2)), np.zeros(1000)), "data", batch_size)
    assert {len(y) for _, y in part.batches()} == {at_once, 1000 % at_once}
