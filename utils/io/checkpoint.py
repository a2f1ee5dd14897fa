"""Training checkpoints: one .npz file of arrays each, written atomically; the last two are kept.

A .npz file is a zip, with a checksum of everything in it: damage is detected when the file is read.
"""

import contextlib
import fcntl
import io
import math
import os
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import IO

import numpy as np

from keras_sbp.utils.io.command_line import UserError

_NAME = re.compile(r"checkpoint-\d{8,}\.npz")
NUM_KEPT = 2
# How long a start waits for the lock of a run that is just ending, as the process that started it was killed.
MAX_WAIT = 2  # seconds


def lock_directory(directory: str) -> IO[str]:
    """Make a run's directory if need be, and lock it against a second run.

    Returns:
        The lock file: the lock holds until it is closed, or the process ends.
    Raises:
        UserError: another run holds the lock, or the directory cannot be written.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        lock = open(os.path.join(directory, ".lock"), "a")
        _acquire(lock)
        return lock
    except BlockingIOError:
        raise UserError(
            f"another run is writing {directory}: wait for it or choose another --checkpoints_dir"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {directory} ({error.strerror}): choose another --checkpoints_dir") from None


def _acquire(lock):
    """Lock a file.

    Raises:
        BlockingIOError: another process still holds it after MAX_WAIT.
    """
    start = time.monotonic()
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - start > MAX_WAIT:
                raise
            time.sleep(0.1)


def save(directory: str, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Write {name: array} as the checkpoint of a step, atomically; the directory is made if need be.

    Raises:
        UserError: it cannot be written.
    """
    name = f"checkpoint-{step:08d}.npz"
    try:
        os.makedirs(directory, exist_ok=True)
        write(os.path.join(directory, name), lambda file: np.savez(file, **arrays), ".checkpoint.aside")
        names = _names(directory)
        # A later one is not from this run's past: it was damaged, or the run would have resumed from it.
        kept = names[: names.index(name) + 1][-NUM_KEPT:]
        for other in set(names) - set(kept):
            os.remove(os.path.join(directory, other))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {name} in {directory} ({reason}): free disk space; the previous checkpoint is intact"
        ) from None


def latest(directory: str) -> dict[str, np.ndarray] | None:
    """{name: array} of the newest intact checkpoint, or None if there is none; warns on stderr of damaged ones.

    Raises:
        UserError: there are checkpoints, and none is intact.
    """
    names = _names(directory)
    for name in reversed(names):
        path = os.path.join(directory, name)
        try:
            return arrays(path)
        except Exception as error:  # whatever a damaged file makes zipfile and NumPy raise
            print(f"warning: {path} is damaged ({error}); trying the previous one", file=sys.stderr)
    if names:
        raise UserError(f"no checkpoint in {directory} is intact: delete {' and '.join(names)} to train from scratch")
    return None


def arrays(path: str) -> dict[str, np.ndarray]:
    """{name: array} of a .npz file.

    Raises:
        ValueError, OSError, zipfile.BadZipFile and others: it is damaged, holds objects, or claims more than its size.
    """
    return {name.removesuffix(".npy"): _array(name, content) for name, content in members(path).items()}


def members(path: str) -> dict[str, bytes]:
    """{name: bytes} of a zip file whose checksums are right.

    Raises:
        ValueError, OSError, zipfile.BadZipFile and others: it is damaged, or claims more than its own size.
    """
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        claimed, size = sum(member.file_size for member in archive.infolist()), os.path.getsize(path)
        if not 0 < claimed <= size:
            raise ValueError(f"a file of {size} bytes claims to hold {claimed}")
        # The directory has no checksum, and zipfile does not count its entries. Their number is at the file's end.
        file.seek(-12, os.SEEK_END)
        if struct.unpack("<H", file.read(2)) != (len(archive.infolist()),):
            raise ValueError("its directory is damaged")
        return {member.filename: archive.read(member) for member in archive.infolist()}


def _array(name, content):
    """The array of a .npy file's bytes; its header's claim is checked before memory is taken for it."""
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{name} claims to be {dtype} of {shape} and is not")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def write(path: str, fill: Callable[[IO[bytes]], object], temporary: str | None = None) -> None:
    """Write a file atomically: call `fill(file)` on a temporary file, sync it and rename it to `path`.

    Args:
        temporary: the name of the temporary file, which replaces what a killed run left of it. None: derived from the
            name of `path`, so that two processes may write into one directory.
    """
    directory, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, temporary or f".{name}.aside")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        with open(temporary, "xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(directory)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _sync(directory):
    """Flush a directory's entries to the disk."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _names(directory):
    """The checkpoints of a directory, oldest first."""
    entries = os.scandir(directory) if os.path.isdir(directory) else []
    names = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file()]
    return sorted(names, key=lambda name: (len(name), name))
