"""A quiet terminal: what C++ writes goes to a log, and is shown if the process dies."""

import signal
import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

CODE = """
import os, sys, warnings
from keras_sbp.utils.io import terminal
print("before", file=sys.stderr)
with terminal.quiet(sys.argv[1]):
    print("ours", file=sys.stderr)
    os.write(2, b"from C++\\n")
    warnings.warn("from Keras")
    {end}
print("after", file=sys.stderr)
os.write(2, b"C++ again\\n")
"""


def run(tmp_path, end):
    (tmp_path / "log.txt").write_text("an earlier run\n")
    command = [sys.executable, "-c", CODE.replace("{end}", end), tmp_path / "log.txt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done, (tmp_path / "log.txt").read_text()


def test_what_is_not_ours_goes_to_the_log(tmp_path):
    done, log = run(tmp_path, "pass")
    assert done.returncode == 0 and done.stderr.split("\n")[:-1] == ["before", "ours", "after", "C++ again"]
    assert log.startswith("an earlier run\nfrom C++\n") and "UserWarning: from Keras" in log


@pytest.mark.parametrize("end, number", [("os.abort()", signal.SIGABRT), ("os.kill(os.getpid(), 9)", signal.SIGKILL)])
def test_the_end_of_the_log_is_shown_if_the_process_dies(end, number, tmp_path):
    done, _ = run(tmp_path, end)
    assert done.returncode == -number
    assert "the process died; the end of" in done.stderr and "from C++" in done.stderr
    assert "earlier run" not in done.stderr


def test_an_exception_is_no_death(tmp_path):
    done, log = run(tmp_path, "raise SystemExit(3)")
    assert done.returncode == 3 and "the process died" not in done.stderr and "from C++" in log
