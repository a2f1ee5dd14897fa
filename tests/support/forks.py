"""Scripts started in a hurry: TensorFlow is imported once, and every start is a fork of the process that did.

A fork of a process with threads may hang. This one has a single thread, as it never uses the TensorFlow that it
imports: each start makes TensorFlow's threads and devices for itself. tests/support/scripts.py asks for starts over a
socket:

    python -m tests.support.forks SOCKET
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # else NumPy makes threads as it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["https_proxy"] = "http://127.0.0.1:9"  # no download may succeed
os.environ["no_proxy"] = "127.0.0.1"  # machines find one another

import contextlib
import json
import resource
import runpy
import select
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path

import numpy as np
import sklearn.datasets  # noqa: F401
import tensorflow as tf

from keras_sbp.nets import lenet5, lenet_fc, vgglike  # noqa: F401
from keras_sbp.utils.deployment import timing
from keras_sbp.utils.experiment import Script
from keras_sbp.utils.io import checkpoint, command_line, data, figures, towers  # noqa: F401
from keras_sbp.utils.tool import checkpoint as sbp_checkpoint
from keras_sbp.utils.tool import latency
from tests.support import garbage, scripts

ROOT = Path(__file__).parents[2]


class Start:
    """A script that runs.

    Args:
        script: its name, or Python code.
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
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in (1, "out"), (2, "err"):
                os.dup2(os.open(f"{self.log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            path = str(ROOT / "scripts" / f"{script}.py")
            sys.argv = [path, *arguments]
            for change in before:
                change()
            if os.path.exists(path):
                runpy.run_path(path, run_name="__main__")
            else:
                exec(script, {"__name__": "__main__"})
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
        """The exit status (negative: the signal), or None if it does not end in `seconds`: it is killed then."""
        ended, _, _ = select.select([os.pidfd_open(self.process)], [], [], seconds)
        if not ended:
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status) if ended else None

    def said(self, name="err"):
        """What the script has said."""
        return Path(f"{self.log}.{name}").read_text(errors="replace")


# What a start may be asked to do before its script.


def no_timing():
    """Speed-ups are not measured: they are the only figures of a row that differ from run to run."""
    timing.speedups = lambda original, smaller, what: {"timing": None, "cpu_speedup": None, "gpu_speedup": None}
    timing.seconds_per_batch = lambda *arguments: np.ones((1, 2))
    latency.milliseconds = lambda models, x: [1.0] * len(models)


def two_cpus():
    """Two logical devices of the CPU."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def two_towers():
    """Two towers without a GPU."""
    two_cpus()
    towers.strategy = lambda num_gpus: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def largest_file(size):
    """As on a full disk: no file grows beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limited(addresses, seconds):
    """Limit the address space in bytes, and the processor time."""
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def signal_after(number, files):
    """The process sends itself a signal after it has written `files` files."""
    write, left = checkpoint.write, files

    def stopping(path, fill, aside=None):
        nonlocal left
        write(path, fill, aside)
        left -= 1
        if not left:
            os.kill(os.getpid(), number)

    checkpoint.write = stopping


def killed_in_epoch(number):
    """Keras's fit is killed as its epoch of this number, 1 for the first, ends, before anything is saved of it."""
    ends = sbp_checkpoint.Checkpoint.on_epoch_end

    def dying(self, epoch, logs=None):
        if epoch + 1 == number:
            os.kill(os.getpid(), signal.SIGKILL)
        ends(self, epoch, logs)

    sbp_checkpoint.Checkpoint.on_epoch_end = dying


def made_images():
    """Sixty images in the form of CIFAR-10 instead of any data set."""
    from tests.test_vgglike import made

    data.load = lambda dataset, data_dir, split, seed=0: made(60, seed=split == "test")


def published_at(folder):
    """Published networks are in another folder than git's."""
    Script.published_directory = lambda self, name=None: f"{folder}/{name or self.name}{self.suffix}"


def told_reads():
    """Each split of the data that is read is said on stderr."""
    load = data.load

    def telling(dataset, data_dir, split, seed=0):
        print(f"reads {split};", file=sys.stderr)
        return load(dataset, data_dir, split, seed)

    data.load = telling


def environment(variables):
    os.environ.update(variables)


def calls_by(address, before):
    """A script that calls another one has it started here, too."""

    def call(command):
        _, path, *arguments = command
        done = scripts.ask(address, Path(path).stem, arguments, before)
        sys.stderr.write(done.stderr + done.stdout)
        if done.returncode:
            sys.exit(done.returncode)

    command_line.call = call


def serve(address):
    """Start what is asked for until whoever started this is gone: a line of JSON a start, one back, one at its end."""
    garbage.collect_seldom()
    listening, asked = socket.socket(socket.AF_UNIX), selectors.DefaultSelector()
    listening.bind(address)
    listening.listen()
    asked.register(listening, selectors.EVENT_READ)
    asked.register(sys.stdin, selectors.EVENT_READ)
    print("listening", flush=True)
    while True:
        for key, _ in asked.select():
            if key.fileobj is sys.stdin:
                for start, _ in filter(None, [key.data for key in asked.get_map().values()]):
                    os.kill(start.process, signal.SIGKILL)
                return
            if key.fileobj is listening:
                connection, _ = listening.accept()
                question = json.loads(connection.makefile().readline())
                before = [
                    (lambda name=name, given=given: globals()[name](*given)) for name, *given in question["before"]
                ]
                start = Start(question["script"], question["arguments"], question["log"], before)
                connection.sendall(f"{start.process}\n".encode())
                asked.register(os.pidfd_open(start.process), selectors.EVENT_READ, (start, connection))
            else:
                start, connection = key.data
                asked.unregister(key.fileobj)
                os.close(key.fd)
                # Who asked may have gone.
                status = start.wait()
                with contextlib.suppress(OSError):
                    connection.sendall(f"{status}\n".encode())
                connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
