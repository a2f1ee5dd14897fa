"""Scripts as a terminal sees them: --help without TensorFlow, our lines alone, and no process left behind by a kill."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

# Those of the tables, which share `experiment.main`.
EXPERIMENTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if "experiment.main(" in path.read_text())
LOOK = """
import runpy, sys
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
try:
    runpy.run_path(script, run_name="__main__")
finally:
    print("imported:", sorted({"keras", "tensorflow"} & sys.modules.keys()))
"""


def python(*arguments, **options):
    """A Python process of its own: the tests' forks have TensorFlow already."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize("script", EXPERIMENTS)
def test_help_needs_no_tensorflow(script):
    done = python("-c", LOOK, f"scripts/{script}.py", "--help")
    assert "--epochs" in done.stdout and "imported: []" in done.stdout, done.stderr


def test_a_wrong_flag_is_refused_without_tensorflow():
    done = python("-c", LOOK, "scripts/lenet5-sbp.py", "--epoch=1")
    assert done.returncode == 2 and "imported: []" in done.stdout
    assert re.fullmatch(r"error: .*Unknown command line flag 'epoch'.*\n", done.stderr)


@pytest.mark.slow
def test_the_terminal_has_bars_and_our_lines_alone(tmp_path):
    folder = tmp_path / "run"
    done = python("scripts/lenet5.py", "--dataset=digits", "--epochs=1", f"--checkpoints_dir={folder}")
    assert done.returncode == 0 and done.stdout.startswith("LeNet5 on digits"), done.stderr
    bar = re.compile(r"[\w .,]+: +\d+%\|.*")
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip() and not bar.fullmatch(line)]
    assert lines == [
        f"{folder}/network.keras: keras.models.load_model opens it, scripts/predict.py classifies images with it"
    ]
    assert (folder / "log.txt").exists()


CHILD = """
import os, signal, sys
from keras_sbp.utils.io import command_line
def work():
    with open(os.environ["PIPE"], "w", buffering=1) as pipe:
        print("working", file=pipe)
        while True:
            signal.pause()
command_line.run(work)
"""
PARENT = """
import sys
from keras_sbp.utils.io import command_line
command_line.call([sys.executable, "-c", sys.argv[1]])
"""


def test_a_run_that_another_started_ends_when_that_is_killed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", PARENT, CHILD]
    parent = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PIPE": str(pipe)}, stderr=subprocess.DEVNULL)
    with open(pipe) as told:
        assert told.readline() == "working\n"
        parent.send_signal(signal.SIGKILL)
        assert told.read() == "", "the pipe ends when the process does"
    assert parent.wait() == -signal.SIGKILL
