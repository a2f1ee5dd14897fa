"""Several machines: processes on 127.0.0.1 that train one network, and one of them that dies."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from utils import checkpoint

ROOT = Path(__file__).parents[1]


def ports(count):
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    free = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return free


def started(folders, epochs, batch_size=64, chief="worker"):
    """A process a folder, which together run lenet-fc.py; `chief`: what the cluster calls the first of them."""
    cluster, tasks = {}, []
    for place, port in enumerate(ports(len(folders))):
        machines = cluster.setdefault("worker" if place else chief, [])
        tasks.append({"type": "worker" if place else chief, "index": len(machines)})
        machines.append(f"127.0.0.1:{port}")
    processes = []
    for task, folder in zip(tasks, folders):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if len(folders) > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        command = [sys.executable, ROOT / "scripts" / "lenet-fc.py", f"--checkpoints_dir={folder}"]
        command += ["--dataset=digits", f"--epochs={epochs}", f"--batch_size={batch_size}"]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
    return processes


def ended(processes):
    """[(exit status, stdout, stderr)]"""
    texts = [process.communicate() for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts)]


def weights(folder):
    return [np.asarray(v) for v in keras.models.load_model(folder / "network.keras").variables]


def test_two_machines_train_what_one_trains_and_only_the_chief_writes(tmp_path):
    chief, worker = ended(started([tmp_path / "chief", tmp_path / "worker"], epochs=4, chief="chief"))
    assert chief[0] == worker[0] == 0, chief[2] + worker[2]
    assert "digits" in chief[1] and not worker[1]
    assert not (tmp_path / "worker").exists()
    (one,) = ended(started([tmp_path / "one"], epochs=4, batch_size=128))
    assert one[0] == 0, one[2]
    for ours, theirs in zip(weights(tmp_path / "chief"), weights(tmp_path / "one"), strict=True):
        # Rounding, as 44 steps of Adam pass it on.
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())


def test_a_machine_that_dies_stops_the_others_and_the_same_commands_go_on(tmp_path):
    chief, worker = processes = started([tmp_path, tmp_path], epochs=40)
    seen = ""
    while not re.search(r"epoch ([2-9]|\d\d)/", seen):
        seen += chief.stderr.readline(200) or pytest.fail(seen)
    worker.kill()
    (status, _, said), _ = ended(processes)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and "another machine" in errors[0], said
    assert "Traceback" not in said
    done = int(checkpoint.latest(tmp_path)["done"])
    for status, _, said in ended(started([tmp_path, tmp_path], epochs=40)):
        assert status == 0 and f"going on from step {done} of 440" in said, said
