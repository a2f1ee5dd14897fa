"""How long the published networks of seed 0 take in LiteRT, OpenVINO and ONNX Runtime, on one thread of the CPU.

    pip install openvino onnx onnxruntime tf2onnx
    python scripts/runtimes.py                    # some minutes; on an otherwise idle machine

Milliseconds for up to 1,024 images at once, and for one: medians of rounds in which all runtimes take turns. It trains
nothing. Results: docs/performance.md#other-runtimes
"""

import re
import time

import numpy as np
from tqdm import tqdm

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import experiment
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.io import command_line, networks, report, terminal

RUNTIMES = {
    "to_litert": runtimes.LiteRT(1),
    "LiteRT": runtimes.LiteRT(1, arranged=False),
    "OpenVINO": runtimes.OpenVINO(1),
    "ONNX Runtime": runtimes.ONNXRuntime(1),
}
ROUNDS, SECONDS_PER_ROUND = 9, 0.1


def main():
    columns = " | ".join(RUNTIMES)
    print(f"| network | images at once | {columns} | one image: {columns} |\n|---|" + (2 * len(RUNTIMES) + 1) * "--:|")
    paths = (experiment.ROOT / "checkpoints" / "published").glob("*/network.keras")
    for path in tqdm(sorted(path for path in paths if not re.search(r"-seed\d+$", path.parent.name)), unit="network"):
        network, original = networks.load(path), NETWORKS[report.read(path.parent)["network"]].build()
        images = timing.images_of_a_row(original)
        with terminal.quiet(None):  # what converters write
            times = [f"{1e3 * each:.3g}" for count in (images, 1) for each in seconds(network, count)]
        tqdm.write(f"| {path.parent.name} | {images:,} | {' | '.join(times)} |")


def seconds(network, count):
    """That a batch of `count` images takes in each of RUNTIMES: (runtimes,)."""
    images = np.random.default_rng(0).random((1, count, *network.inputs[0].shape[1:]), np.float32)
    runs = [runtime.runner(network, images) for runtime in RUNTIMES.values()]
    found = []
    for _ in range(ROUNDS):
        found.append([])
        for run in runs:
            run(1)  # its memory was out of the caches
            batches, start = 0, time.perf_counter()
            while not batches or time.perf_counter() - start < SECONDS_PER_ROUND:
                run(1)
                batches += 1
            found[-1].append((time.perf_counter() - start) / batches)
    return np.median(found, 0)


if __name__ == "__main__":
    command_line.run(main)
