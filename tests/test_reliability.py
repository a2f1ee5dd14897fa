"""Short forms of what docs/reliability.md prints."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress import extreme_parameters

ROOT = Path(__file__).parents[1]


def last_line(module, *arguments):
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_runs_on_two_towers_that_are_killed_end_as_undisturbed():
    """Killed while a checkpoint is written and around its renaming; tests/test_scripts.py kills runs on one tower."""
    line = last_line("tests.stress.kills", "--kills=2", "--scripts", "lenet-fc-sbp", "--towers", "2")
    kills, _, _, equal = map(int, line.split()[1:])
    assert kills == equal == 2


@pytest.mark.slow
def test_hostile_input_is_one_line():
    assert last_line("tests.stress.bad_input", "--cases=12") == "12 hostile inputs: 12 single-line errors"


@pytest.mark.slow
def test_extreme_starts_stay_finite():
    steps, *not_finite = extreme_parameters.measure(12, rates=extreme_parameters.RATES[:2])
    assert steps == 12 * 45 and not any(not_finite)
