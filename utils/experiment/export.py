"""A run's network in the formats in which people deploy one."""

import os
import sys

import numpy as np
import tensorflow as tf

from keras_sbp.utils.deployment import arrange, runtimes
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.io import checkpoint, networks
from keras_sbp.utils.io.command_line import UserError


def export(run: Experiment) -> None:
    """Write a run's network.keras as a SavedModel (`saved_model/`) and for LiteRT, arranged for a CPU.

    `network.tflite` is in float32, `network-int8.tflite` has weights and activations of eight bits. Prints to stderr
    the largest difference of the first two's outputs from network.keras's on 100 random images, and the errors of the
    third and of network.keras.

    Raises:
        UserError: network.keras cannot be read, or the exports cannot be written.
    """
    model = networks.load(os.path.join(run.directory, "network.keras"))
    names = ("saved_model", "network.tflite", "network-int8.tflite")
    saved, lite, small = (os.path.join(run.directory, name) for name in names)
    content, int8 = runtimes.to_litert(model), runtimes.to_litert(model, run.examples())
    try:
        arrange.for_cpu(model).export(saved, verbose=False)
        checkpoint.write(lite, lambda file: file.write(content))
        checkpoint.write(small, lambda file: file.write(int8))
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"cannot write the exports in {run.directory} ({error}): free disk space or choose another directory"
        ) from None

    images = np.random.default_rng(0).random((100, *model.inputs[0].shape[1:]), np.float32)
    archive = tf.saved_model.load(saved)
    outputs = {saved: archive.serve(images), lite: runtimes.predictor(content)(images)}
    for path, output in outputs.items():
        difference = np.abs(np.asarray(output) - np.asarray(model(images))).max()
        print(f"{path}: its outputs differ from network.keras's by at most {difference:.1e}", file=sys.stderr)
    errors = [run.scores(each)["error"] for each in (runtimes.predictor(int8), model)]
    print(f"{small}: {errors[0]:.2f} % error, network.keras has {errors[1]:.2f} %", file=sys.stderr)
