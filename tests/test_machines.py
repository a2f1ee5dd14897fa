"""Several machines: processes on 127.0.0.1 that train one network, and one of them that dies."""

import json
import os
import re
import signal
import socket

import keras
import numpy as np
import pytest

from keras_sbp.utils.io import checkpoint, command_line, towers
from tests.support import scripts


def ports(count):
    """Ports that nobody listens on, below those that the system gives to whoever asks for any."""
    free = []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                free.append(port)
        if len(free) == count:
            return free


def started(logs, folders, epochs, batch_size=64, chief="worker", last=()):
    """A process a folder, which together run lenet-fc.py.

    logs: the folder of what they say. chief: what the cluster calls the first of them. last: flags of the last alone.
    """
    cluster, tasks = {}, []
    for index, port in enumerate(ports(len(folders))):
        machines = cluster.setdefault("worker" if index else chief, [])
        tasks.append({"type": "worker" if index else chief, "index": len(machines)})
        machines.append(f"127.0.0.1:{port}")
    processes = []
    for index, (task, folder) in enumerate(zip(tasks, folders)):
        config = json.dumps({"cluster": cluster, "task": task})
        before = [("environment", {"TF_CONFIG": config})] if len(folders) > 1 else []
        arguments = [f"--checkpoints_dir={folder}", "--dataset=digits", f"--epochs={epochs}"]
        arguments += [f"--batch_size={batch_size}", *(last if folder is folders[-1] else ())]
        processes.append(scripts.started("lenet-fc", arguments, logs / f"machine{index}", before))
    return processes


def ended(*arguments, **settings):
    """The `Done` of each process."""
    return [process.wait() for process in started(*arguments, **settings)]


def weights(folder):
    return [np.asarray(v) for v in keras.models.load_model(folder / "network.keras").variables]


@pytest.mark.slow
def test_two_machines_train_what_one_trains_and_only_the_chief_writes(tmp_path):
    chief, worker = ended(tmp_path, [tmp_path / "chief", tmp_path / "worker"], epochs=4, chief="chief")
    assert chief.returncode == worker.returncode == 0, chief.stderr + worker.stderr
    assert "digits" in chief.stdout and not worker.stdout
    assert not (tmp_path / "worker").exists()
    (one,) = ended(tmp_path, [tmp_path / "one"], epochs=4, batch_size=128)
    assert one.returncode == 0, one.stderr
    for ours, theirs in zip(weights(tmp_path / "chief"), weights(tmp_path / "one"), strict=True):
        # Rounding, as 44 steps of Adam pass it on.
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_machine_that_dies_stops_the_others_and_the_same_commands_go_on(tmp_path):
    run = tmp_path / "run"
    os.mkfifo(tmp_path / "machine0.err")
    chief, worker = started(tmp_path, [run, run], epochs=40)
    with open(tmp_path / "machine0.err") as says:
        said = ""
        while not re.search(r"epoch ([2-9]|\d\d)/", said):
            said += says.read(200) or pytest.fail(said)
        worker.kill()
        said += says.read()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert chief.status() == 2 and len(errors) == 1 and "another machine" in errors[0], said
    assert worker.status() == -signal.SIGKILL and "Traceback" not in said
    done = int(checkpoint.latest(run)["done"])
    (tmp_path / "machine0.err").unlink()
    for again in ended(tmp_path, [run, run], epochs=40):
        assert again.returncode == 0 and f"resuming from step {done} of 440" in again.stderr, again.stderr


def test_machines_with_other_flags_say_so(tmp_path):
    folders = [tmp_path / "first", tmp_path / "last"]
    for done in ended(tmp_path, folders, epochs=4, last=["--learning_rate=0.5"]):
        assert done.returncode == 2 and "error: the flags are not the same on all machines" in done.stderr, done.stderr
    assert not list(tmp_path.glob("*/*.npz"))


@pytest.mark.parametrize("cluster", ["", "{", '{"cluster": 3}', '{"cluster": {"worker": ["127.0.0.1:1"]}}'])
def test_a_cluster_that_is_none_is_one_line(cluster, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(command_line.UserError, match="TF_CONFIG"):
        towers.strategy()
