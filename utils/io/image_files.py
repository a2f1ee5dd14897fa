"""Images that people have in files of their own."""

import gzip
import math
import zlib

import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.data import LARGEST_FILE


def read(file, shape):
    """The images of a PNG, JPEG or IDX file.

    Args:
        file: its path; IDX may be packed by gzip.
        shape: (height, width, channels), which a PNG or JPEG is brought to.
    Returns:
        (N, *shape) uint8.
    Raises:
        UserError: it cannot be read, or holds no images of that shape.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(LARGEST_FILE)
        if content[:2] == b"\x1f\x8b":
            with gzip.open(file) as opened:
                content = opened.read(LARGEST_FILE)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({error}): give an image that can be read") from None
    if content[:3] == b"\0\0\x08":
        return _idx(file, content, shape)
    try:
        image = tf.io.decode_image(content, channels=shape[-1], expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{file} is no PNG, JPEG or IDX file: save it as one") from None
    image = tf.image.resize(image, shape[:2], method="area")
    return np.rint(image).astype(np.uint8)[None]


def _idx(file, content, shape):
    """IDX: two zeros, 8 for uint8, the number of axes, their lengths as big-endian int32, the values."""
    axes = int.from_bytes(content[3:4], "big")
    head, values = content[4 : 4 + 4 * axes], content[4 + 4 * axes :]
    count, *lengths = np.frombuffer(head[: len(head) // 4 * 4], ">u4").tolist() or [0]
    right = [*shape] in (lengths, [*lengths, 1])
    if not right or not count or count * math.prod(shape) != len(values):
        raise UserError(
            f"{file} does not hold images of {shape}, which the network reads, or is cut short: give another file"
        )
    return np.frombuffer(values, np.uint8).reshape(-1, *shape)
