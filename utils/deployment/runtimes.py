"""The runtimes in which networks are deployed: LiteRT, a TensorFlow graph, or XLA through JAX."""

import os
import re
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_sbp.lazy import tf
from keras_sbp.utils.deployment import arrange

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

# TensorFlow and XLA alternate between this number of batches.
BATCHES = 4
# Inputs that may have any size have this one when `to_litert` tries whether LiteRT can run a network.
TRIAL_SIZE = 128


class LiteRT:
    """LiteRT's interpreter on the CPU, with its XNNPACK delegate.

    Args:
        threads: number of threads.
        int8: whether weights and activations have eight bits.
    """

    def __init__(self, threads: int, int8: bool = False):
        self.name, self.threads, self.int8 = "LiteRT, int8" if int8 else "LiteRT", threads, int8

    def runner(self, model: keras.Model, images: np.ndarray) -> Callable[[int], None]:
        """A function that runs a model for a number of batches, all of them the first of `images`.

        That batch is in the input already, as in LiteRT's own benchmark, so that copying it from Python does not count.

        Args:
            model: of one input.
            images: (batches, batch, ...).
        """
        content = to_litert(model, images[0][:100] if self.int8 else None)
        interpreter = make_interpreter(content, self.threads, images.shape[1], images.shape[2:])
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[0])
        return repeated(interpreter.invoke)


class TensorFlow:
    """A TensorFlow graph.

    Args:
        device: the name of a tf.device.
    """

    def __init__(self, device: str):
        self.name, self.device = "TensorFlow", device
        self.threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or len(os.sched_getaffinity(0))

    def runner(self, model: keras.Model, images: np.ndarray) -> Callable[[int], Any]:
        """See `LiteRT.runner`; but on all batches of `images`, one after the other.

        They are a loop in the graph, so that calls from Python do not count.
        """
        # In a graph, an operation runs where its variables are, which is where they were made.
        with tf.device(self.device):
            model, constants = arrange.for_cpu(model), tuple(map(tf.constant, images))

            @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
            def sum_of_outputs(batches):
                total, queue = 0.0, constants
                for _ in tf.range(batches):
                    # One batch after the other, each of other images than the one before, and without a copy.
                    tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                    total += tf.reduce_sum(tf.cast(model(queue[0], training=False), tf.float32))
                    queue = (*queue[1:], queue[0])
                return total

        def run(batches: int) -> np.ndarray:
            with tf.device(self.device):
                # A number comes back to the host: the clock stops when the device is done.
                return sum_of_outputs(batches).numpy()

        return run


class XLA:
    """A network compiled as a whole by XLA, through JAX, on its first device: a GPU if it finds one.

    Needs Keras on JAX.
    """

    def __init__(self):
        import jax

        self.name = f"XLA, JAX {jax.__version__}, Keras {keras.__version__}"
        (device, *_) = jax.devices()
        self.is_gpu = device.platform == "gpu"
        self.device = device.device_kind if self.is_gpu else "CPU"
        self.threads = None if self.is_gpu else len(os.sched_getaffinity(0))

    def runner(self, model: keras.Model, images: np.ndarray) -> Callable[[int], float]:
        """See `LiteRT.runner`; but on all batches of `images`, which lie on the device, one after the other."""
        import jax

        groups = (model.trainable_variables, model.non_trainable_variables)
        state, images = [[variable.value for variable in group] for group in groups], jax.device_put(images)

        @jax.jit
        def sum_of_outputs(state, images, batches):
            def step(number, total):
                # The sum so far goes into the next batch: none can be skipped or moved out of the loop.
                batch = images[number % len(images)] + 1e-20 * total
                outputs, _ = model.stateless_call(*state, batch, training=False)
                return total + keras.ops.sum(keras.ops.cast(outputs, "float32"))

            return jax.lax.fori_loop(0, batches, step, 0.0)

        # A number comes back to the host: the clock stops when the device is done.
        return lambda batches: float(sum_of_outputs(state, images, batches))


def repeated(once: Callable[[], Any]) -> Callable[[int], None]:
    """A function that calls another a number of times."""

    def run(batches: int) -> None:
        for _ in range(batches):
            once()

    return run


def to_litert(model: keras.Model, examples: Any = None) -> bytes:
    """A network as a .tflite file for LiteRT, arranged for speed (`arrange.for_cpu`).

    Args:
        model: functional or Sequential.
        examples: (N, ...), inputs of the network; for several inputs a list, or a dict by their names. If given,
            weights and activations are int8, in the ranges that they have for these; inputs and outputs remain float32.
    Raises:
        ValueError: the model has no graph, LiteRT cannot run it, `examples` do not fit, or Keras does not run on
            TensorFlow.
        ImportError: LiteRT is not installed.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise ValueError(
            f"to_litert needs KERAS_BACKEND=tensorflow, not {backend}: save {model.name} and load it there"
        )
    int8 = {}
    if examples is not None:
        arrays = _by_input(model, examples)
        int8["optimizations"] = [tf.lite.Optimize.DEFAULT]
        int8["representative_dataset"] = lambda: (
            {name: array[None] for name, array in zip(arrays, example)} for example in zip(*arrays.values())
        )
    arranged = arrange.for_cpu(model, litert=True)
    try:
        content = exported(arranged, **int8)
        _run_once(content)
    except ImportError:
        raise
    except Exception as error:  # the converter raises all kinds
        # An operation of TensorFlow's without a kernel in LiteRT is called Flex..., if the converter knows it.
        missing = re.search(r"\(Flex(\w+)\)|'tf\.(\w+)' op is neither", str(error))
        why = f"no kernel for {missing[1] or missing[2]}" if missing else str(error).strip().split("\n")[0]
        raise ValueError(
            f"LiteRT cannot run {model.name} ({why}): build recurrent layers with unroll=True and transposed "
            "convolutions without dilation, or deploy it as a SavedModel by its export()"
        ) from error
    return content


def exported(model: keras.Model, **options: Any) -> bytes:
    """A network as a .tflite file, as Keras's own export writes it."""
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/network.tflite", format="litert", verbose=False, **options)
        with open(f"{folder}/network.tflite", "rb") as file:
            return file.read()


def _by_input(model: keras.Model, examples: Any) -> dict[str, np.ndarray]:
    """{name of an input: its examples, in its dtype}."""
    if not isinstance(examples, dict):
        arrays = examples if len(model.inputs) > 1 else [examples]
        if len(arrays) > len(model.inputs):
            raise ValueError(
                f"examples of {len(arrays)} inputs: {model.name} has {len(model.inputs)}, give those of these"
            )
        examples = {x.name: array for x, array in zip(model.inputs, arrays)}
    if missing := [x.name for x in model.inputs if x.name not in examples]:
        raise ValueError(f"no examples for {', '.join(missing)}: give those of every input of {model.name}")
    found = {x.name: np.asarray(examples[x.name], x.dtype) for x in model.inputs}
    for x in model.inputs:
        shape = found[x.name].shape
        if len(shape) != len(x.shape) or any(size not in (None, own) for size, own in zip(x.shape[1:], shape[1:])):
            raise ValueError(f"examples of {shape} do not fit the input {x.name} of {x.shape}")
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"the inputs have examples of different numbers ({each}): give as many for each")
    if not all(counts.values()):
        raise ValueError("there are no examples: give some, such as 100 of the training data")
    if infinite := [name for name, array in found.items() if not np.isfinite(array).all()]:
        raise ValueError(f"the examples of {', '.join(infinite)} hold numbers that are not finite: remove these")
    return found


def _run_once(content: bytes) -> None:
    """Run a .tflite file's content on zeros.

    Raises:
        RuntimeError: LiteRT cannot run it.
    """
    interpreter = make_interpreter(content, 1, 1, TRIAL_SIZE)
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()


def make_interpreter(content: bytes, threads: int, batch_size: int, sizes: int | tuple[int, ...] = 1) -> "Interpreter":
    """LiteRT's interpreter of a .tflite file's content, for batches of this size.

    Args:
        sizes: those of the other axes where they are not known: one for all, or of each.
    Raises:
        ImportError: LiteRT is not installed.
        RuntimeError: LiteRT cannot run it.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(f"LiteRT is not installed ({error}): pip install ai-edge-litert") from error

    interpreter = Interpreter(model_content=content, num_threads=threads)
    for details in interpreter.get_input_details():
        shape = np.where(details["shape_signature"][1:] < 0, sizes, details["shape"][1:]).tolist()
        interpreter.resize_tensor_input(details["index"], (batch_size, *shape))
    interpreter.allocate_tensors()
    return interpreter


def predictor(content: bytes) -> Callable[..., np.ndarray]:
    """A function from a batch of images to the outputs of a .tflite file in LiteRT, which is called like a model.

    Args:
        content: of the file, of a network of one input and one output.
    """

    def predict(images: np.ndarray, training: bool = False) -> np.ndarray:
        interpreter = make_interpreter(content, 1, len(images), images.shape[1:])
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.asarray(images))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return predict
