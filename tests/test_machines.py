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

from utils.plumbing import checkpoint, command_line, towers

ROOT = Path(__file__).parents[1]
# A start of its own: machines that are forks of one process do not find each other. Its speed-ups are not measured.
SCRIPT = """
import runpy, sys
from tests import starts
starts.no_timing()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ports(count):
    """Ports that nobody listens on, below those that the system gives to whoever asks for any."""
    free = []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                free.append(port)
        if len(free) == count:
            return free


def started(folders, epochs, batch_size=64, chief="worker", last=()):
    """A process a folder, which together run lenet-fc.py.

    chief: what the cluster calls the first of them. last: flags of the last one alone.
    """
    cluster, tasks = {}, []
    for place, port in enumerate(ports(len(folders))):
        machines = cluster.setdefault("worker" if place else chief, [])
        tasks.append({"type": "worker" if place else chief, "index": len(machines)})
        machines.append(f"127.0.0.1:{port}")
    processes = []
    for task, folder in zip(tasks, folders):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
        if len(folders) > 1:
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        command = [sys.executable, "-c", SCRIPT, ROOT / "scripts" / "lenet-fc.py", f"--checkpoints_dir={folder}"]
        command += ["--dataset=digits", f"--epochs={epochs}", f"--batch_size={batch_size}"]
        command += last if folder is folders[-1] else ()
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
    return processes


def ended(processes):
    """[(exit status, stdout, stderr)]"""
    try:
        texts = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
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


def test_machines_with_other_flags_say_so(tmp_path):
    for status, _, said in ended(started([tmp_path, tmp_path / "last"], epochs=4, last=["--learning_rate=0.5"])):
        assert status == 2 and "error: the flags are not the same on all machines" in said, said
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("cluster", ["", "{", '{"cluster": 3}', '{"cluster": {"worker": ["127.0.0.1:1"]}}'])
def test_a_cluster_that_is_none_is_one_line(cluster, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(command_line.UserError, match="TF_CONFIG"):
        towers.strategy()
