"""Scripts for tests: each start is a fork of one process that has TensorFlow imported (tests/support/forks.py)."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NO_TIMING = ("no_timing",)
PATIENCE = 400  # seconds that a script may take


class Done(NamedTuple):
    """A script that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A script that runs.

    Args:
        address: of the process that starts it.
        script: its name, or Python code.
        arguments: after the name.
        before: [(name of a function in tests/support/forks.py, its arguments ...)], called in the new process first.
        log: a path; <log>.err may be a pipe that a test reads.
    """

    def __init__(self, address, script, arguments, before, log):
        self.log = log
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(address)
        question = {"script": script, "arguments": [str(a) for a in arguments], "before": before, "log": str(log)}
        connection.sendall(json.dumps(question).encode() + b"\n")
        self.answers = connection.makefile()
        self.process = int(self.answers.readline())

    def status(self):
        """Its exit status (negative: the signal), once it has ended."""
        return int(self.answers.readline())

    def wait(self):
        """Its `Done`."""
        status = self.status()
        return Done(status, *(Path(f"{self.log}.{name}").read_text(errors="replace") for name in ("out", "err")))

    def kill(self):
        os.kill(self.process, signal.SIGKILL)


def ask(address, script, arguments, before):
    """Run a script to its end."""
    with tempfile.TemporaryDirectory() as folder:
        return Running(address, script, arguments, before, f"{folder}/log").wait()


@functools.cache
def address():
    """Where the process listens that starts scripts for this one."""
    folder = tempfile.TemporaryDirectory()
    path = f"{folder.name}/socket"
    command = [sys.executable, "-m", "tests.support.forks", path]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=nowhere)
    assert server.stdout.readline() == b"listening\n"
    atexit.register(lambda: (server.stdin.close(), server.wait(), folder.cleanup()))
    return path


def started(script, arguments, log, before=()):
    """A `Running` script, without its speed-ups, whose calls of other scripts are such starts as well."""
    before = [NO_TIMING, *before]
    return Running(address(), script, arguments, [*before, ("calls_by", address(), before)], log)


def run(script, *arguments, before=()):
    """The `Done` of a script, or of Python code."""
    with tempfile.TemporaryDirectory() as folder:
        return started(script, arguments, f"{folder}/log", before).wait()
