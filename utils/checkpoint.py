"""The training checkpoint: one .npz file of arrays, whole or not there, the last two kept.

A .npz is a zip, which holds a checksum of everything in it: a damaged file is recognised when it is read.
"""

import os
import re
import sys
import zipfile
import zlib

import numpy as np

from utils.command_line import UserError

_NAME = re.compile(r"checkpoint-\d{8}\.npz")
KEPT = 2


def save(folder, step, arrays):
    """Write {name: array} as the checkpoint of a step: aside, synced, then renamed. Raises UserError if it cannot."""
    name = f"checkpoint-{step:08d}.npz"
    try:
        write(os.path.join(folder, name), lambda file: np.savez(file, **arrays))
        for old in _names(folder)[:-KEPT]:
            os.remove(os.path.join(folder, old))
    except OSError as error:
        raise UserError(f"cannot write {name} in {folder} ({error.strerror}); the one before it stays") from None


def latest(folder):
    """{name: array} of the newest checkpoint that is whole, or None if there is none; says on stderr which are not."""
    for name in reversed(_names(folder)):
        path = os.path.join(folder, name)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            print(f"warning: {path} is damaged ({error}); trying the one before it", file=sys.stderr)
    return None


def write(path, fill):
    """Call `fill(file)` on a file aside and put it in the place of `path` once it is on the disk."""
    aside = f"{path}.part"
    try:
        with open(aside, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.remove(aside)
        raise


def _names(folder):
    return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name)) if os.path.isdir(folder) else []
