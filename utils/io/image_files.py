"""Users' own image files."""

import gzip
import math
import zlib

import numpy as np

from keras_sbp.lazy import tf
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.download import MAX_FILE_SIZE


def read(file: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of a PNG, JPEG or IDX file.

    Args:
        file: its path; an IDX file may be gzipped.
        shape: (height, width, channels), to which a PNG or JPEG is resized.
    Returns:
        (N, *shape) uint8.
    Raises:
        UserError: the file cannot be read, or has no images of that shape.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(MAX_FILE_SIZE)
        if content[:2] == b"\x1f\x8b":
            with gzip.open(file) as opened:
                content = opened.read(MAX_FILE_SIZE)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({error}): give another image") from None
    if content[:3] == b"\0\0\x08":
        return _idx(file, content, shape)
    try:
        image = tf.io.decode_image(content, channels=shape[-1], expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{file} is neither PNG, JPEG nor IDX: convert it to one of these") from None
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
            f"{file} is truncated, or its images are not of the shape {shape} that the network reads: give another file"
        )
    return np.frombuffer(values, np.uint8).reshape(-1, *shape)
