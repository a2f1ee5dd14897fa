"""A quiet terminal: what TensorFlow, XLA and LiteRT write to file descriptor 2 goes to a log file.

They write there from C++, before any setting of theirs is read. Python's own `sys.stderr` keeps the terminal.
"""

import contextlib
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator

# Of a log, where the process died.
LAST_LINES, LAST_BYTES = 15, 10_000


@contextlib.contextmanager
def quiet(path: str | os.PathLike | None) -> Iterator[None]:
    """Within it, file descriptor 2 and Python's warnings are appended to a log file.

    If the process dies within it (a crash in C++, the memory's end, SIGKILL), the end of the log is shown: by a process
    that waits for this. So it should begin before TensorFlow is imported, which starts threads.

    Args:
        path: of the log file, whose directory exists; None: a temporary file.
    Raises:
        OSError: it cannot be written.
    """
    if path is None:
        with tempfile.NamedTemporaryFile(suffix=".log") as file, quiet(file.name):
            yield
        return
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    start = os.fstat(log).st_size
    sys.stderr.flush()
    terminal, stderr = os.dup(2), sys.stderr
    watcher, pipe = _watch(path, start, terminal)
    os.dup2(log, 2)
    os.close(log)
    # pytest and others have a stderr of their own, which does not write to file descriptor 2.
    own = os.fdopen(os.dup(terminal), "w", buffering=1) if _writes_to(stderr, 2) else None
    sys.stderr = own or stderr
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _log_warning
            yield
    finally:
        sys.stderr.flush()
        sys.stderr = stderr
        os.dup2(terminal, 2)
        os.close(terminal)
        if own:
            own.close()
        os.write(pipe, b"\n")
        os.close(pipe)
        os.waitpid(watcher, 0)


def _writes_to(stream, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def _log_warning(message, category, filename, lineno, file=None, line=None) -> None:
    os.write(2, warnings.formatwarning(message, category, filename, lineno, line).encode(errors="replace"))


def _watch(path: str | os.PathLike, start: int, terminal: int) -> tuple[int, int]:
    """Start a process that shows the log if this one ends without writing to the pipe.

    Returns:
        Its id, and the pipe.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(reading)
        return process, writing
    try:
        os.close(writing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not os.read(reading, 1):
            with open(path, "rb") as file:
                file.seek(max(start, file.seek(0, os.SEEK_END) - LAST_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-LAST_LINES:]
            text = "\n".join([f"the process died; the end of {os.fspath(path)}:", *lines])
            os.write(terminal, f"{text}\n".encode(errors="replace"))
    finally:
        os._exit(0)
