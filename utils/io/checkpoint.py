"""The training checkpoint: one .npz file of arrays, whole or not there, the last two kept.

A .npz is a zip, which holds a checksum of everything in it: a damaged file is recognised when it is read.
"""

import contextlib
import fcntl
import io
import math
import os
import re
import struct
import sys
import zipfile

import numpy as np

from keras_sbp.utils.io.command_line import UserError

_NAME = re.compile(r"checkpoint-\d{8,}\.npz")
KEPT = 2


def hold(folder):
    """Make a run's folder if there is none, and hold it, so that a second run in it is refused.

    Returns:
        The open file that holds it: until it is closed, or the process ends.
    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, ".lock"), "a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError:
        raise UserError(f"another run is writing {folder}; wait for it or give --checkpoints_dir") from None
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); give another --checkpoints_dir") from None


def save(folder, step, arrays):
    """Write {name: array} as the checkpoint of a step: aside, synced, then renamed; the folder is made if need be.

    Raises:
        UserError: it cannot be written.
    """
    name = f"checkpoint-{step:08d}.npz"
    try:
        os.makedirs(folder, exist_ok=True)
        write(os.path.join(folder, name), lambda file: np.savez(file, **arrays), ".checkpoint.aside")
        names = _names(folder)
        # A later one is not from this run's past: it was damaged, or it would have been gone on from.
        kept = names[: names.index(name) + 1][-KEPT:]
        for other in set(names) - set(kept):
            os.remove(os.path.join(folder, other))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {name} in {folder} ({reason}); the one before it stays") from None


def latest(folder):
    """{name: array} of the newest checkpoint that is whole, or None if there is none; says on stderr which are not.

    Raises:
        UserError: there are some, and not one is whole.
    """
    names = _names(folder)
    for name in reversed(names):
        path = os.path.join(folder, name)
        try:
            return arrays(path)
        except Exception as error:  # whatever a damaged file makes zipfile and NumPy raise
            print(f"warning: {path} is damaged ({error}); trying the one before it", file=sys.stderr)
    if names:
        raise UserError(f"no checkpoint in {folder} is whole: remove {' and '.join(names)} to train from the start")
    return None


def arrays(path):
    """{name: array} of a .npz file.

    Raises:
        ValueError, OSError, zipfile.BadZipFile and others: it is damaged, holds objects, or claims more than its size.
    """
    return {name.removesuffix(".npy"): _array(name, content) for name, content in members(path).items()}


def members(path):
    """{name: bytes} of a zip file, all as its checksums say.

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


def write(path, fill, aside=None):
    """Call `fill(file)` on a file aside and put it in the place of `path` once it is on the disk.

    Args:
        aside: the name of the file aside. What a killed run leaves of it, the next one of that name replaces. None: one
            that goes by the name of `path`, so that two may write into one folder.
    """
    folder, name = os.path.split(path)
    aside = os.path.join(folder, aside or f".{name}.aside")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)
        with open(aside, "xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _sync(folder)
    except BaseException:
        if os.path.exists(aside):
            os.remove(aside)
        raise


def _sync(folder):
    """Bring the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _names(folder):
    """The checkpoints of a folder, by their steps."""
    entries = os.scandir(folder) if os.path.isdir(folder) else []
    names = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file()]
    return sorted(names, key=lambda name: (len(name), name))
