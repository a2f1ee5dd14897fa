"""Experiments from Python, without flags; and what identifies a run."""

import contextlib
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.nets import NETWORKS
from keras_sbp.utils.experiment import Experiment, Script, Settings, finished, session, start
from keras_sbp.utils.experiment.evaluate import evaluate
from keras_sbp.utils.experiment.settings import check_same, record
from keras_sbp.utils.io import report, towers
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import SSL, Finetuning, NormalizedOriginal, Original, Retraining, StructuredBP

ROOT = Path(__file__).parents[1]


def experiment(directory, **settings):
    settings = Settings(dataset="digits", epochs=2, batch_size=128, checkpoints_dir=str(directory), **settings)
    method = StructuredBP(noise_learning_rate=0.3, log_sigma=-1.0)
    return Experiment(NETWORKS["Lenet-fc"], "StructuredBP", settings, method)


@pytest.fixture
def untimed(monkeypatch):
    from keras_sbp.utils.deployment import timing

    monkeypatch.setattr(timing, "speedups", lambda original, smaller, what: {"cpu_speedup": None, "gpu_speedup": None})


@pytest.mark.slow
def test_two_experiments_run_in_one_process_without_flags(tmp_path, untimed):
    results, policy = [], keras.config.dtype_policy()
    for name, precision in (("one", "float32"), ("other", "bfloat16")):
        with experiment(tmp_path / name, precision=precision) as run:
            model = run.train(run.build(unit=run.method.unit))
            results.append(run.finish(model))
        assert report.read(tmp_path / name) == results[-1] == run.result()
    assert keras.config.dtype_policy() == policy
    smaller = keras.models.load_model(tmp_path / "one" / "network.keras")
    assert results[0]["multiply_adds"] == sum(np.prod(w.shape) for w in smaller.weights if len(w.shape) == 2) < 545_000
    assert results[0]["settings"]["noise_learning_rate"] == 0.3


@pytest.mark.slow
def test_the_experiment_of_the_docs_runs(tmp_path, untimed, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
    assert len(code.split("\n\n")[1].splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(code, names := {})
    assert names["result"]["network"] == "LeNet5" and names["result"]["error"] < 50
    assert (tmp_path / "run" / "network.keras").exists()


def test_an_experiment_from_python_says_where_it_goes():
    with pytest.raises(UserError, match="checkpoints_dir"):
        Experiment(NETWORKS["Lenet-fc"], "StructuredBP", Settings(), StructuredBP())


@pytest.mark.parametrize("wrong", [{"price": -1.0}, {"learning_rate": float("inf")}, {"criterion": "size"}])
def test_hyperparameters_out_of_bounds_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        StructuredBP(**wrong)


def test_records_from_before_version_1_are_compared_by_todays_names():
    """kl_start and kl_scale were lists of text: numbers, or the price of a unit's cost."""
    held = {"kl_start": ["price=10"], "kl_scale": ["price=5"], "snr_threshold": 1.0, "rule": "snr"}
    wanted = {"price": 10.0, "final_price": 5.0, "kl_scale": [1.0], "threshold": 1.0, "criterion": "snr", "new": 3}
    check_same("run", held, wanted)
    with pytest.raises(UserError, match="run holds a run with --price=10.0: rerun with these flags"):
        check_same("run", held, wanted | {"price": 8.0})
    check_same("run", {"kl_start": ["145", "64"], "kl_scale": ["1"]}, {"initial_kl_scale": [145.0, 64.0], "price": 0.0})


def test_a_teacher_has_the_precision_of_the_run_and_has_not_seen_what_is_held_out():
    path = str(ROOT / "checkpoints" / "published" / "lenet5-sbp")
    dtypes, student = {}, NETWORKS["LeNet5"].build()
    for precision in ("float32", "bfloat16"):
        teacher = finished.load_teacher(path, Settings(precision=precision), student)
        dtypes[precision] = {layer.compute_dtype for layer in teacher.layers[:-1]}, teacher.layers[-1].compute_dtype
    assert dtypes["float32"] == ({"float32"}, "float32")
    assert "bfloat16" in dtypes["bfloat16"][0] and dtypes["bfloat16"][1] == "float32"
    with pytest.raises(UserError, match="holds out"):
        finished.load_teacher(path, Settings(validate=True), student)
    with pytest.raises(UserError, match=r"reads \(28, 28, 1\) and returns \(10,\), not \(32, 32, 3\)"):
        finished.load_teacher(path, Settings(), NETWORKS["ResNet-20"].build())


def test_nothing_to_train_is_refused(tmp_path):
    settings = Settings(dataset="digits", epochs=0, checkpoints_dir=str(tmp_path))
    for finetuning in (None, Finetuning(epochs=1)):  # there is no checkpoint to fine-tune
        match = "give more epochs" if finetuning is None else "give a checkpoint and finetune_epochs"
        with pytest.raises(UserError, match=match):
            Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP(), finetuning=finetuning)
    with pytest.raises(UserError, match="teacher does nothing"):
        Finetuning(teacher="lenet5")
    with pytest.raises(UserError, match="finetune_learning_rate=0 trains nothing"):
        Finetuning(epochs=1, learning_rate=0.0)
    assert Retraining(epochs=1, learning_rate=0.0, kernel_learning_rate=0.1).epochs == 1


def test_a_directory_holds_a_run_of_one_network_and_method(tmp_path):
    """Their settings may be the same."""
    settings = Settings(dataset="digits", epochs=1, checkpoints_dir=str(tmp_path))
    with Experiment(NETWORKS["Lenet-fc"], "Original", settings, Original()) as run:
        model = run.train(run.build())
    others = [("LeNet5", "Original"), ("Lenet-fc", "StructuredBP")]
    for network, name in others:
        with pytest.raises(UserError, match=f"holds a run of .*, not of {network if name == 'Original' else name}"):
            Experiment(NETWORKS[network], name, settings, Original()).__enter__()
    run.finish(model)
    for network, name in others:
        with pytest.raises(UserError, match="holds a run of"):
            Experiment(NETWORKS[network], name, settings, Original()).result()
    assert Experiment(NETWORKS["Lenet-fc"], "Original", settings, Original()).result()["epochs"] == 1


def test_a_teacher_that_cannot_be_one_is_refused_before_the_training(tmp_path):
    settings = Settings(dataset="digits", epochs=1, checkpoints_dir=str(tmp_path))
    other = ROOT / "checkpoints" / "published" / "resnet20"
    for teacher, why in ((tmp_path / "none", "none"), (other, "cannot be the teacher")):
        finetuning = Finetuning(epochs=1, teacher=str(teacher))
        with Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP(), finetuning=finetuning) as run:
            with pytest.raises(UserError, match=why):
                run.train(run.build(unit=run.method.unit))
        assert not list(tmp_path.glob("checkpoint-*"))


def test_noise_that_is_dead_from_the_start_is_one_line(tmp_path):
    settings = Settings(dataset="digits", checkpoints_dir=str(tmp_path))
    run = Experiment(NETWORKS["LSTM"], "StructuredBP", settings, StructuredBP(log_sigma=2.0))
    with pytest.raises(UserError, match="dead"):
        start.insert_noise(run, run.original())


def test_devices_that_tensorflow_uses_already_are_one_line(monkeypatch):
    def refuse(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(UserError, match="num_gpus=0: .* start a new process"):
        towers.strategy(0)


def test_an_evaluation_on_the_cpu_hides_the_gpus_before_it_starts(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(session, "evaluate", lambda run: calls.append("evaluate"))
    settings = Settings(dataset="digits", checkpoints_dir=str(tmp_path), evaluate=True, num_gpus=0)
    session.run_or_show(Experiment(NETWORKS["LeNet5"], "Original", settings, Original()), train=None)
    assert calls == [([], "GPU"), "evaluate"]


def test_where_a_run_starts_from_is_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(dataset="digits", checkpoint="network.keras", checkpoints_dir=str(tmp_path))
    run = Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP())
    assert start.find_or_train(run, "lenet5") == str(tmp_path / "network.keras")


def test_epochs_of_0_are_refused_where_the_noise_was_not_trained(tmp_path):
    path = str(ROOT / "checkpoints" / "published" / "lenet5-sbp")
    settings = Settings(dataset="digits", epochs=0, checkpoint=path, checkpoints_dir=str(tmp_path))
    run = Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP(), finetuning=Finetuning(epochs=1))
    with pytest.raises(UserError, match="give more epochs"):
        run.train(run.build(unit=run.method.unit))


def test_every_published_record_is_compared_with_todays():
    for path in (ROOT / "checkpoints" / "published").glob("*/result.json"):
        with contextlib.suppress(UserError):  # of other settings, in one line
            check_same("run", json.loads(path.read_text())["settings"], record(Settings(), StructuredBP()))


@pytest.mark.parametrize("strengths", [(1e-4,), (1e-4, 1e-4, 1e-4), (1e-4, float("nan"))])
def test_strengths_are_one_for_each_convolution(strengths):
    with pytest.raises(UserError, match="one number >= 0 for each of 2 convolutions: conv1, conv2"):
        SSL(conv_strengths=strengths).updates(NETWORKS["LeNet5"].build(), 100)


def test_a_kernel_rate_of_0_is_refused_for_muon():
    with pytest.raises(UserError, match="trains no convolution"):
        NormalizedOriginal(kernel_learning_rate=0.0).updates(NETWORKS["ResNet-20"].build(), 100)


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_what_it_has_started_from(tmp_path, untimed):
    """Its own Original appears only after it has started from the published one."""
    script = Script("lenet5-sbp", "-elsewhere")
    settings = Settings(dataset="digits", epochs=1, checkpoints_dir=str(tmp_path / "run"))
    started = tmp_path / "started"
    started.mkdir()
    with Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP(), script=script) as run:
        run.start = str(started)
        run.train(run.build(unit=run.method.unit))
    again = Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP(), script=script)
    assert start.find_or_train(again, "lenet5") == str(started)
    started.rmdir()
    with pytest.raises(UserError, match=f"{started}, which is gone"):
        start.find_or_train(again, "lenet5")


def test_a_log_that_cannot_be_written_stops_no_run(tmp_path):
    """TensorFlow's lines go to a temporary file then."""
    log = sys.modules["keras_sbp.utils.experiment.main"].log_file
    assert log(str(tmp_path), Settings()) == str(tmp_path / "log.txt")
    (tmp_path / "log.txt").unlink()
    (tmp_path / "log.txt").mkdir()
    assert log(str(tmp_path), Settings()) is None


def test_an_experiment_without_a_script_has_to_say_where_it_starts(tmp_path):
    settings = Settings(dataset="digits", epochs=1, checkpoints_dir=str(tmp_path))
    run = Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP())
    with pytest.raises(UserError, match=r"Settings\(checkpoint="):
        start.find_or_train(run, "lenet5")


@pytest.mark.parametrize(
    "changes, said",
    [({"settings": {"validate": True}}, "give --validate"), ({"dataset": "digits-random"}, "in its own way")],
)
def test_what_cannot_be_compared_is_not_evaluated(tmp_path, changes, said):
    """The test set is not read for a run that reported on held-out images."""
    dataset = changes.get("dataset", "digits")
    settings = Settings(dataset=dataset, evaluate=True, checkpoint=str(tmp_path), checkpoints_dir="-")
    result = {"network": "LeNet5", "method": "Original", "dataset": "digits", "seed": 0, "error": 1.0, "units": [1]}
    result |= {"multiply_adds": 1, "settings": {}, "cpu_speedup": 1, "gpu_speedup": None, "flops_speedup": 1}
    report.write(tmp_path, result | changes)
    (tmp_path / "network.keras").touch()
    with pytest.raises(UserError, match=said):
        evaluate(Experiment(NETWORKS["LeNet5"], "Original", settings, Original()))
