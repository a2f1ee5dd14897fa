"""Scripts started in a hurry: TensorFlow is imported once, and every start is a fork of the process that did.

A fork of a process with threads may hang. This one has a single thread, as it never uses the TensorFlow that it
imported: each start makes TensorFlow's threads and devices for itself.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else NumPy makes threads as it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["https_proxy"] = "http://127.0.0.1:9"  # no download may succeed

import resource
import runpy
import select
import signal
import sys
import traceback
from pathlib import Path

import sklearn.datasets  # noqa: F401
import tensorflow as tf

from nets import lenet5, lenet_fc  # noqa: F401
from utils import cost, experiment, structured_bp, towers  # noqa: F401

ROOT = Path(__file__).parents[1]


class Start:
    """A script that runs.

    Args:
        script: its name.
        arguments: what follows the name on the command line.
        log: a path; what the script says goes to <log>.out and <log>.err.
        before: called in the new process before the script.
    """

    def __init__(self, script, arguments, log, before=()):
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
        self.log = log
        self.process = os.fork()
        if not self.process:
            self._run(script, arguments, before)

    def _run(self, script, arguments, before):
        status = 1
        try:
            for number, name in (1, "out"), (2, "err"):
                os.dup2(os.open(f"{self.log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            path = str(ROOT / "scripts" / f"{script}.py")
            sys.argv = [path, *arguments]
            for change in before:
                change()
            runpy.run_path(path, run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds=None):
        """The exit status (negative: the signal), or None after so many seconds, when the script is killed."""
        ended, _, _ = select.select([os.pidfd_open(self.process)], [], [], seconds)
        if not ended:
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status) if ended else None

    def said(self, name="err"):
        """What the script has said."""
        return Path(f"{self.log}.{name}").read_text(errors="replace")


def no_timing():
    """Speed-ups are not measured: they are the only figures of a row that differ from run to run."""
    cost.speedups = lambda original, smaller: {"timing": None, "cpu_speedup": None, "gpu_speedup": None}


def two_towers():
    """Two towers without a GPU: two logical devices of the CPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    towers.strategy = lambda num_gpus: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def largest_file(size):
    """As on a full disk: no file grows beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limited(addresses, seconds):
    """No more address space than so many bytes, and no more of a processor's time."""

    def change():
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    return change
