"""A run's network in the forms in which people deploy one."""

import os
import sys

import numpy as np
import tensorflow as tf

from keras_sbp.utils.deployment import arrange, runtimes
from keras_sbp.utils.io import checkpoint, networks
from keras_sbp.utils.io.command_line import UserError


def export(folder, examples, error):
    """Write a run's network.keras as a SavedModel (`saved_model/`) and for LiteRT, all in the fast form.

    `network.tflite` is of float32, `network-int8.tflite` has weights and values of eight bits. Says on stderr by how
    much the outputs of the first two differ from network.keras's on 100 random images, at the most, and how many
    answers of the third and of network.keras are wrong.

    Args:
        examples: (N, ...) float32, training examples as the network reads them: int8 has its ranges from them.
        error: from a network, called as a Keras model, to the share of its answers that is wrong, in %.
    Raises:
        UserError: network.keras cannot be read, or the exports cannot be written.
    """
    model = networks.load(os.path.join(folder, "network.keras"))
    saved, lite, small = (
        os.path.join(folder, name) for name in ("saved_model", "network.tflite", "network-int8.tflite")
    )
    content, int8 = runtimes.to_litert(model), runtimes.to_litert(model, examples)
    try:
        arrange.for_cpu(model).export(saved, verbose=False)
        checkpoint.write(lite, lambda file: file.write(content))
        checkpoint.write(small, lambda file: file.write(int8))
    except (OSError, tf.errors.OpError) as failure:
        raise UserError(f"cannot write the exports in {folder} ({failure}): make room, or let it be written") from None

    images = np.random.default_rng(0).random((100, *model.inputs[0].shape[1:]), np.float32)
    archive = tf.saved_model.load(saved)
    outputs = {saved: archive.serve(images), lite: runtimes.predictor(content)(images)}
    for path, output in outputs.items():
        difference = np.abs(np.asarray(output) - np.asarray(model(images))).max()
        print(f"{path}: its outputs differ from network.keras's by {difference:.1e} at most", file=sys.stderr)
    wrong = error(runtimes.predictor(int8)), error(model)
    print(f"{small}: {wrong[0]:.2f} % error, network.keras has {wrong[1]:.2f} %", file=sys.stderr)
