"""What runs a network that is deployed: LiteRT, or TensorFlow; and how fast it is there, beside another."""

import os
import tempfile

import numpy as np
import tensorflow as tf

from keras_sbp.utils.deployment import arrange

# TensorFlow runs on so many batches in turn.
BATCHES = 4


class LiteRT:
    """LiteRT's interpreter on the CPU, with its XNNPACK delegate.

    Args:
        threads: how many it uses.
        int8: with weights and values of eight bits.
    """

    def __init__(self, threads, int8=False):
        self.name, self.threads, self.int8 = "LiteRT, int8" if int8 else "LiteRT", threads, int8

    def runner(self, model, images):
        """From a number of batches to nothing: runs a model so many times, on the first of `images`.

        It lies in the input already, as in LiteRT's own benchmark: how long Python takes to copy it is not in it.

        Args:
            model: a Keras model.
            images: (batches, batch, ...).
        """
        content = to_litert(model, images[0][:100] if self.int8 else None)
        interpreter = make_interpreter(content, self.threads, images.shape[1])
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[0])

        def run(batches):
            for _ in range(batches):
                interpreter.invoke()

        return run


class TensorFlow:
    """A TensorFlow graph.

    Args:
        device: the name of a tf.device.
    """

    def __init__(self, device):
        self.name, self.device = "TensorFlow", device
        self.threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0))

    def runner(self, model, images):
        """As of `LiteRT`, but on all batches of `images`, one after the other.

        They are a loop in the graph: how long Python takes for a call is not in it.
        """
        # What is called in a graph is where its variables are, and they are where they were made.
        with tf.device(self.device):
            model, constants = arrange.fast(model), tuple(map(tf.constant, images))

            @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
            def answers_to(batches):
                total, queue = 0.0, constants
                for _ in tf.range(batches):
                    # One batch after the other, each other images than the one before, and none of them copied.
                    tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                    total += tf.reduce_sum(tf.cast(model(queue[0], training=False), tf.float32))
                    queue = (*queue[1:], queue[0])
                return total

        def run(batches):
            with tf.device(self.device):
                # A number comes back to the host: the clock stops when the device is done.
                return answers_to(batches).numpy()

        return run


def to_litert(model, examples=None):
    """A network as LiteRT reads it, in its fast form (`arrange.fast`): bytes.

    Args:
        model: as of `arrange.fast`.
        examples: (N, ...), what the network reads. If given, weights and values are int8, in the ranges that these
            have; inputs and outputs stay float32.
    Raises:
        ValueError: as of `arrange.fast`.
    """
    int8 = {}
    if examples is not None:
        examples = np.asarray(examples, model.inputs[0].dtype)
        int8["optimizations"] = [tf.lite.Optimize.DEFAULT]
        int8["representative_dataset"] = lambda: ([example[None]] for example in examples)
    with tempfile.TemporaryDirectory() as folder:
        fast = arrange.fast(model, litert=True)
        fast.export(f"{folder}/network.tflite", format="litert", verbose=False, **int8)
        with open(f"{folder}/network.tflite", "rb") as file:
            return file.read()


def make_interpreter(content, threads, batch_size):
    """LiteRT's interpreter of a network's bytes, for so many images at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    (details,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], (batch_size, *details["shape"][1:]))
    interpreter.allocate_tensors()
    return interpreter


def answers(content):
    """From images to the outputs of a network's bytes in LiteRT, called as a Keras model is."""

    def outputs(images, training=False):
        interpreter = make_interpreter(content, 1, len(images))
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.asarray(images))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return outputs
