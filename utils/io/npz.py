"""Examples from a .npz file of people's own: checked before they are believed."""

import os
from typing import NamedTuple

import numpy as np

from keras_sbp.utils.io import checkpoint, data
from keras_sbp.utils.io.command_line import UserError

# Of the examples, where there is no test set.
TEST_SHARE = 0.1


class Examples(NamedTuple):
    """x, x_test: (N, ...) float32 or int. y, y_test: (N,) int32, a class each."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read(path: str | None, shape: tuple[int, ...]) -> Examples:
    """The examples of a file.

    Args:
        path: .npz with x and y, and x_test and y_test or neither. None: scikit-learn's digits.
        shape: what the network reads: (28, 28, 1) or (32, 32, 3), where it is the digits.
    Raises:
        UserError: there is no such file, it is damaged or holds objects, or what is in it does not fit together.
    """
    if path is None:
        return _digits(shape)
    if not os.path.isfile(path):
        raise UserError(f"no data at {path}: give a .npz file with x and y")
    try:
        arrays = checkpoint.arrays(path)
    except Exception as error:  # whatever a damaged file makes zipfile and NumPy raise
        raise UserError(
            f"cannot read {path} as .npz ({error}): expected arrays x and y, by np.savez, not np.savez_compressed"
        ) from None
    for name in ("x", "y"):
        if name not in arrays:
            raise UserError(f"{path} has no {name}, but {', '.join(arrays) or 'nothing'}: it takes x and y")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise UserError(f"{path} has one of x_test and y_test: it takes both or neither")
    x, y = _checked(path, arrays["x"], arrays["y"])
    if "x_test" in arrays:
        x_test, y_test = _checked(path, arrays["x_test"], arrays["y_test"])
    else:
        kept = len(x) - max(1, round(TEST_SHARE * len(x)))
        x, x_test, y, y_test = x[:kept], x[kept:], y[:kept], y[kept:]
    if not len(x) or x.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{path} has {len(x)} examples of {x.shape[1:]}, and tests of {x_test.shape[1:]}: it takes "
            "more than one, of one shape"
        )
    return Examples(x, y, x_test, y_test)


def _checked(path, x, y):
    """Examples and their classes as they are used."""
    # A column, as keras.datasets has them.
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if not x.ndim or y.ndim != 1:
        raise UserError(
            f"{path} has x of {x.shape} and y of {y.shape}: x takes an axis of examples, and y a number for each; of "
            "one-hot y, give y.argmax(1)"
        )
    if y.shape != x.shape[:1] or not len(y):
        raise UserError(f"{path} has {x.shape} examples and {y.shape} classes: it takes a class for each example")
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "iuf" or (y != y.astype(np.int32)).any() or (y < 0).any():
        raise UserError(f"{path} needs integer classes from 0 and numeric examples: convert them")
    given, x = x, x.astype(np.int32 if x.dtype.kind in "iu" and x.ndim == 2 else np.float32)
    if not np.isfinite(x).all() or (x.dtype == np.int32 and (x != given).any()):
        raise UserError(f"{path} has examples that are not finite or do not fit int32: remove them")
    return x, y.astype(np.int32)


def _digits(shape):
    """scikit-learn's digits as a network of such a shape reads them: grey, or with a frame and in three colours."""
    found = []
    for split in ("train", "test"):
        images, labels = data.load("digits", "", split)
        images = images.astype(np.float32) / 255
        if shape == (32, 32, 3):
            images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, -1)
        elif shape != (28, 28, 1):
            raise UserError(
                f"without --data it takes a network of (28, 28, 1), and this one reads {shape}: give --data"
            )
        found += [images, labels]
    return Examples(*found)
