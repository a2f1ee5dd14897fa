"""A run's network in the forms in which people deploy one."""

import os
import sys

import numpy as np
import tensorflow as tf

from utils import inference, runtimes
from utils.plumbing import checkpoint, networks
from utils.plumbing.command_line import UserError


def export(folder):
    """Write a run's network.keras as a SavedModel too (`saved_model/`) and as `network.tflite`, both in the fast form.

    Says on stderr by how much the outputs of each differ from network.keras's on 100 random images, at the most.

    Raises:
        UserError: network.keras cannot be read, or the exports cannot be written.
    """
    model = networks.load(os.path.join(folder, "network.keras"))
    saved, lite = os.path.join(folder, "saved_model"), os.path.join(folder, "network.tflite")
    fast = inference.fast(model)
    content = runtimes.flatbuffer(fast)
    try:
        fast.export(saved, verbose=False)
        checkpoint.write(lite, lambda file: file.write(content))
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write the exports in {folder} ({error}): make room, or let it be written") from None

    images = np.random.default_rng(0).random((100, *model.inputs[0].shape[1:]), np.float32)
    interpreter = runtimes.interpreter_of(content, 1, len(images))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    archive = tf.saved_model.load(saved)
    outputs = {
        saved: archive.serve(images),
        lite: interpreter.get_tensor(interpreter.get_output_details()[0]["index"]),
    }
    for path, output in outputs.items():
        difference = np.abs(np.asarray(output) - np.asarray(model(images))).max()
        print(f"{path}: its outputs differ from network.keras's by {difference:.1e} at most", file=sys.stderr)
