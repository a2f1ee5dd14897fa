"""Classifies images with a network from one of the experiments.

    python scripts/predict.py checkpoints/published/lenet5-sbp/network.keras t10k-images-idx3-ubyte.gz

Images are PNG or JPEG files, resized to the network's input, or IDX files as MNIST has them, gzipped or not. They are
preprocessed as in the experiments with that input size.
"""

import numpy as np
import tensorflow as tf
from absl import flags

from keras_sbp.utils.io import command_line, image_files, networks, preprocessing
from keras_sbp.utils.io.command_line import UserError

FLAGS = flags.FLAGS
SHOWN = 3
# {the shape of a network's input: what it reads of images}
PREPROCESS = {(28, 28, 1): preprocessing.scale, (32, 32, 3): preprocessing.standardize}

flags.DEFINE_bool("invert", False, "Dark digits on light paper: MNIST's are light on dark.")
flags.DEFINE_integer("first", 20, "Show the first N images of an IDX file.", lower_bound=1)


def main(files):
    if len(files) < 2:
        raise UserError("give a network and images: python scripts/predict.py NETWORK.keras IMAGES...")
    network, *files = files
    model = networks.load(network)
    shape = tuple(model.inputs[0].shape[1:])
    if shape not in PREPROCESS:
        raise UserError(f"{network} reads images of {shape}; this script knows {', '.join(map(str, PREPROCESS))}")
    for file in files:
        images = image_files.read(file, shape)[: FLAGS.first]
        logits = model(PREPROCESS[shape](255 - images if FLAGS.invert else images), training=False)
        for index, probabilities in enumerate(tf.nn.softmax(logits).numpy()):
            best = np.argsort(-probabilities, kind="stable")[:SHOWN]
            guesses = "   ".join(f"{label} {100 * probabilities[label]:6.2f} %" for label in best)
            print(f"{file}{f'[{index}]' if len(images) > 1 else ''}: {guesses}")


if __name__ == "__main__":
    command_line.run(main, accepts_files=True)
