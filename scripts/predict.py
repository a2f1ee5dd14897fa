"""What a network sees in images: python scripts/predict.py NETWORK.keras IMAGES...

IMAGES are PNG or JPEG files, brought to the network's size, or IDX files as MNIST has them, packed or not:

    python scripts/predict.py checkpoints/lenet5-sbp/network.keras t10k-images-idx3-ubyte.gz
"""

import gzip
import math
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from utils import command_line, data
from utils.command_line import UserError

FLAGS = flags.FLAGS
# {the shape of a network's images: what it reads of uint8 images}
PREPARE = {(28, 28, 1): data.scaled, (32, 32, 3): data.standardised}
SHOWN = 3

flags.DEFINE_bool("invert", False, "Dark digits on light paper: MNIST's are light on dark.")
flags.DEFINE_integer("first", 20, "So many images of an IDX file, from its first.", lower_bound=1)


def main(files):
    if len(files) < 2:
        raise UserError("give a network and images: python scripts/predict.py NETWORK.keras IMAGES...")
    network, *files = files
    try:
        model = keras.models.load_model(network, compile=False)
        shape = tuple(model.inputs[0].shape[1:])
    except Exception as error:  # whatever a missing or damaged file makes Keras raise
        raise UserError(f"{network} cannot be read as a Keras model ({error}); give a run's network.keras") from None
    if shape not in PREPARE:
        raise UserError(f"{network} reads images of {shape}; this script knows {', '.join(map(str, PREPARE))}")
    for file in files:
        images = read(file, shape)
        logits = model(PREPARE[shape](255 - images if FLAGS.invert else images), training=False)
        for index, probabilities in enumerate(tf.nn.softmax(logits).numpy()):
            best = np.argsort(-probabilities, kind="stable")[:SHOWN]
            guesses = "   ".join(f"{label} {100 * probabilities[label]:6.2f} %" for label in best)
            print(f"{file}{f'[{index}]' if len(images) > 1 else ''}: {guesses}")


def read(file, shape):
    """The images of a file: (N, *shape) uint8. Raises UserError if there are none of that shape in it."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(data.LARGEST_FILE)
        if content[:2] == b"\x1f\x8b":
            with gzip.open(file) as opened:
                content = opened.read(data.LARGEST_FILE)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({error})") from None
    if content[:3] == b"\0\0\x08":
        return idx(file, content, shape)[: FLAGS.first]
    try:
        image = tf.io.decode_image(content, channels=shape[-1], expand_animations=False)
    except tf.errors.InvalidArgumentError:
        raise UserError(f"{file} is no PNG, JPEG or IDX file") from None
    image = tf.image.resize(image, shape[:2], method="area")
    return np.rint(image).astype(np.uint8)[None]


def idx(file, content, shape):
    """IDX: two zeros, 8 for uint8, the number of axes, their lengths as big-endian int32, the values."""
    head, values = content[4 : 4 * (1 + content[3])], content[4 * (1 + content[3]) :]
    count, *lengths = np.frombuffer(head[: len(head) // 4 * 4], ">u4").tolist() or [0]
    if lengths not in ([*shape], [*shape[:2]] if shape[2] == 1 else None) or not 0 < count * math.prod(shape) == len(
        values
    ):
        raise UserError(f"{file} does not hold images of {shape}, which the network reads, or is cut short")
    return np.frombuffer(values, np.uint8).reshape(-1, *shape)


if __name__ == "__main__":
    command_line.run(main, files=True)
