"""How long the published networks of seed 0 take in LiteRT, OpenVINO and ONNX Runtime, on one thread of the CPU.

    pip install openvino onnx onnxruntime tf2onnx
    python scripts/runtimes.py                    # a quarter of an hour; on an otherwise idle machine

Milliseconds for up to 1,024 images at once, and for one: medians of rounds in which all runtimes take turns. It trains
nothing. Results: docs/performance.md#other-runtimes
"""

import re
import sys
import tempfile

import numpy as np
from tqdm import tqdm

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.io import command_line, networks, report, terminal

ROUNDS = 9


def to_litert(network, images):
    return litert(runtimes.to_litert(network), images)


def keras_litert(network, images):
    return litert(runtimes.exported(network), images)


def litert(content, images):
    interpreter = runtimes.make_interpreter(content, 1, len(images), images.shape[1:])
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    return interpreter.invoke


def in_openvino(network, images):
    import openvino

    # Machines with AMX compute in bfloat16 unless told not to.
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    with tempfile.TemporaryDirectory() as folder:
        network.export(f"{folder}/network.xml", format="openvino", verbose=False)
        compiled = openvino.Core().compile_model(f"{folder}/network.xml", "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(images))
    return request.infer


def in_onnx_runtime(network, images):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        network.export(f"{folder}/network.onnx", format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(f"{folder}/network.onnx", settings, ["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, images)
    binding.bind_output(session.get_outputs()[0].name)
    return lambda: session.run_with_iobinding(binding)


# What makes a function that runs a network once on images that are in its input already. All but the first are of what
# Keras's own export writes.
RUNTIMES = {"to_litert": to_litert, "LiteRT": keras_litert, "OpenVINO": in_openvino, "ONNX Runtime": in_onnx_runtime}


def main():
    columns = " | ".join(RUNTIMES)
    print(f"| network | images at once | {columns} | one image: {columns} |\n|---|" + (2 * len(RUNTIMES) + 1) * "--:|")
    paths = (experiment.ROOT / "checkpoints" / "published").glob("*/network.keras")
    for path in tqdm(sorted(path for path in paths if not re.search(r"-seed\d+$", path.parent.name)), unit="network"):
        network, original = networks.load(path), NETWORKS[report.read(path.parent)["network"]].build()
        images = timing.images_of_a_row(original)
        with terminal.quiet(None):  # what converters write
            found = [seconds(network, count) for count in (images, 1)]
        times = [f"{1e3 * times[name]:.3g}" if name in times else "-" for times, _ in found for name in RUNTIMES]
        tqdm.write(f"| {path.parent.name} | {images:,} | {' | '.join(times)} |")
        for name, error in (found[0][1] | found[1][1]).items():
            tqdm.write(f"{path.parent.name}: not in {name}: {error}", file=sys.stderr)


def seconds(network, count):
    """{runtime: seconds that a batch of `count` images takes}, and {runtime: why it does not run the network}."""
    images = np.random.default_rng(0).random((count, *network.inputs[0].shape[1:]), np.float32)
    runs, failed = {}, {}
    for name, made in RUNTIMES.items():
        try:
            runs[name] = runtimes.repeated(made(network, images))
        except Exception as error:  # of whatever kind converters and runtimes raise
            failed[name] = error
    batches = {name: timing.batches_per_call(run) for name, run in runs.items()}
    rounds = [[timing.seconds(run, batches[name]) for name, run in runs.items()] for _ in range(ROUNDS)]
    return dict(zip(runs, np.median(rounds, 0))), failed


if __name__ == "__main__":
    command_line.run(main)
