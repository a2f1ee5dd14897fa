"""Measures training throughput on synthetic images, or inference speed (--infer). Prints one JSON line per measurement.

    python scripts/benchmark.py --net=lenet5 --method=sbp --batch_size=128 --seconds=20
    python scripts/benchmark.py --net=lenet5 --peer   # alternating with the same step in PyTorch, eager and compiled
    python scripts/benchmark.py --net=lenet5 --infer=checkpoints/published/lenet5-sbpc --runtime=litert

Speed-ups are medians of ratios, measured in alternation. Results: docs/performance.md
"""

import dataclasses
import inspect
import json
import os
import resource
import time

START = time.perf_counter()

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from keras_sbp.layers import sparse_vd
from keras_sbp.nets import NETWORKS
from keras_sbp.utils import pruning, training
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.experiment.flags import define, read
from keras_sbp.utils.io import command_line, data, networks, preprocessing, towers
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.methods import PruningMethod, StructuredBP
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS
NETS = {network.script: network.build for network in NETWORKS.values()}
IMAGES = 10_000
# A training step reads the weights three times: forwards, for the gradient of the inputs and for that of the weights.
FLOPS_A_MULTIPLY_ADD = 6

flags.DEFINE_enum("net", "lenet5", NETS, "The network.")
flags.DEFINE_enum(
    "method",
    "sbp",
    ["original", "sbp", "sparsevd"],
    "Without noise, or with noise after every unit or on every weight.",
)
flags.DEFINE_integer("batch_size", 128, "Images per step.", lower_bound=1, upper_bound=IMAGES)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "bfloat16 is Keras's mixed_bfloat16.")
flags.DEFINE_float("seconds", 20, "How long to measure, after the graph has been made and warmed up.", lower_bound=0.1)
flags.DEFINE_bool("peer", False, "Measure the same step in PyTorch for the CPU, alternating with ours.")
flags.DEFINE_list("infer", None, "Networks to time beside --net: run folders, network.keras files, or 'dense': itself.")
flags.DEFINE_enum("runtime", "tensorflow", ["tensorflow", "litert", "litert-int8"], "What --infer runs them with.")
flags.DEFINE_integer("threads", 1, "Of LiteRT.", lower_bound=1)
define(StructuredBP, defaults={"noise_learning_rate": 5e-2})

# Seconds that one side of --peer runs per round.
ROUND_SECONDS = 1.0
INFER_BATCH_SIZES = (1, 32, 1024)
INFER_PAIRS = 30
# What only training reads, and only --infer.
TRAINING_FLAGS = [field.name for field in dataclasses.fields(StructuredBP)]
TRAINING_FLAGS += ["method", "batch_size", "precision", "seconds", "peer"]
INFER_FLAGS = ["runtime", "threads"]
# No step here reads them, or none without noise on units.
UNUSED_FLAGS = ["weight_decay", "label_smoothing", "warmup", "decay_start", "shrink_every"]
NOISE_FLAGS = [field.name for field in dataclasses.fields(StructuredBP)][len(dataclasses.fields(PruningMethod)) :]


def main():
    for name in TRAINING_FLAGS if FLAGS.infer else INFER_FLAGS:
        if FLAGS[name].present:
            raise UserError(f"--{name} does nothing {'with' if FLAGS.infer else 'without'} --infer: leave it out")
    for name in UNUSED_FLAGS + (NOISE_FLAGS if FLAGS.method != "sbp" else []):
        if FLAGS[name].present:
            raise UserError(f"--{name} does nothing with --method={FLAGS.method}: leave it out")
    if FLAGS["threads"].present and not FLAGS.runtime.startswith("litert"):
        raise UserError("--threads is of LiteRT: give --runtime=litert or leave it out")
    if FLAGS.infer:
        infer()
    else:
        train()


def infer():
    original, device = NETS[FLAGS.net](), "CPU:0"
    if FLAGS.runtime.startswith("litert"):
        runtime = runtimes.LiteRT(FLAGS.threads, int8=FLAGS.runtime == "litert-int8")
    else:
        device = "GPU:0" if tf.config.list_logical_devices("GPU") else device
        runtime = runtimes.TensorFlow(device)
    for name in FLAGS.infer:
        path = name if name.endswith(".keras") else os.path.join(name, "network.keras")
        network = original if name == "dense" else networks.load(path)
        if network.inputs[0].shape != original.inputs[0].shape:
            raise UserError(f"{name} reads images of {network.inputs[0].shape[1:]}: give the --net that it comes from")
        for batch_size in INFER_BATCH_SIZES:
            seconds = timing.seconds_per_batch(original, network, batch_size, INFER_PAIRS, runtime)
            ratios = seconds[:, 0] / seconds[:, 1]
            result = {
                "net": FLAGS.net,
                "network": name,
                "runtime": runtime.name,
                "device": device,
                "threads": runtime.threads,
                "batch_size": batch_size,
                "flops_speedup": round(counting.multiply_adds(original) / max(counting.multiply_adds(network), 1), 2),
                "images_per_second": round(batch_size / np.median(seconds[:, 1]), 1),
                "original_images_per_second": round(batch_size / np.median(seconds[:, 0]), 1),
                "speedup": round(np.median(ratios), 2),
                "speedup_quartiles": np.quantile(ratios, [0.25, 0.75]).round(2).tolist(),
            }
            print(json.dumps(result), flush=True)


def train():
    keras.config.set_dtype_policy("mixed_bfloat16" if FLAGS.precision == "bfloat16" else "float32")
    # The peer runs on the CPU.
    strategy, build = towers.strategy(0 if FLAGS.peer else None), NETS[FLAGS.net]
    method = read(StructuredBP)
    model, kl = network(build, method)
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(IMAGES, *model.inputs[0].shape[1:]), dtype=np.uint8)
    labels = generator.integers(data.NUM_CLASSES, size=IMAGES, dtype=np.int32)
    step = training.Step(
        model,
        batches=training.Batches(data.Images(images, labels), preprocessing.scale, FLAGS.batch_size, 0, strategy),
        objective=training.Objective(kl),
        updates=training.Updates(method.rate),
        epochs=1000,
        strategy=strategy,
    )
    start = time.perf_counter()
    step.run(0, 0, 1)
    compile_seconds = time.perf_counter() - start
    startup_seconds = time.perf_counter() - START

    chunk = min(10, step.steps_per_epoch)
    # TensorFlow learns in its first hundred steps which operations are cheap.
    for _ in range(-(-100 // chunk)):
        step.run(0, 0, chunk)
    # {name: a function that runs N steps}
    sides = {"ours": lambda steps: step.run(1, 0, steps)[0].numpy()}
    if FLAGS.peer:
        sides |= _peers(images, labels)
    speeds, steps = _alternate(sides, chunk)
    images_per_second = np.median(speeds["ours"])
    result = {
        "net": FLAGS.net,
        "method": FLAGS.method,
        "batch_size": FLAGS.batch_size,
        "precision": FLAGS.precision,
        "steps": steps,
        "images_per_second": round(images_per_second, 1),
        "gflops_per_second": round(images_per_second * counting.multiply_adds(model) * FLOPS_A_MULTIPLY_ADD / 1e9, 2),
        "compile_seconds": round(compile_seconds, 2),
        "startup_seconds": round(startup_seconds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    if FLAGS.peer:
        result |= _compared(speeds)
    print(json.dumps(result))


def _alternate(sides, chunk):
    """{name: images per second in each round}, and our steps: the sides alternate until ours ran for --seconds."""
    speeds, steps, spent = {name: [] for name in sides}, 0, 0.0
    with tqdm(total=FLAGS.seconds, unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s") as bar:
        while spent < FLAGS.seconds:
            for name, run in sides.items():
                done, start, elapsed = 0, time.perf_counter(), 0.0
                while elapsed < min(ROUND_SECONDS, FLAGS.seconds):
                    run(chunk)
                    done += chunk
                    elapsed = time.perf_counter() - start
                speeds[name].append(done * FLAGS.batch_size / elapsed)
                if name == "ours":
                    steps, spent = steps + done, spent + elapsed
            bar.update(min(spent, FLAGS.seconds) - bar.n)
    return speeds, steps


def network(build, method):
    """The network with --method in it, and its KL divergence as `training.Objective` takes it."""
    if FLAGS.method == "original":
        return build(), None
    taken = inspect.signature(build).parameters
    if FLAGS.method == "sbp":
        settings = {name: getattr(method, name) for name in ("threshold", "criterion", "log_sigma")}
        try:
            model = build(unit=method.unit) if "unit" in taken else pruning.insert(build(), **settings)
        except ValueError as error:
            raise UserError(str(error)) from None
        return model, method.kl(model)
    layers = {"dense": sparse_vd.Dense, "conv": sparse_vd.Conv2D}
    if "dense" not in taken:
        raise UserError(f"--method=sparsevd is not for {FLAGS.net}: take another --net")
    return build(**{name: layer for name, layer in layers.items() if name in taken}), sparse_vd.kl(1.0)


def _peers(images, labels):
    """{name: a function that runs N steps of the same training in PyTorch}, warmed up."""
    if FLAGS.method == "sparsevd" or FLAGS.net not in ("lenet-fc", "lenet5", "vgglike"):
        raise UserError("--peer has the LeNets and VGG-like, as they are or with StructuredBP: take one of them")
    try:
        import peer_torch
    except ImportError as error:
        raise UserError(
            f"--peer needs PyTorch ({error}): pip install torch --index-url https://download.pytorch.org/whl/cpu"
        ) from None
    sides = {}
    for name in ("eager", "compiled"):
        step = peer_torch.Step(
            FLAGS.net,
            FLAGS.method,
            images,
            labels,
            batch_size=FLAGS.batch_size,
            rate=FLAGS.learning_rate,
            noise_rate=FLAGS.noise_learning_rate,
            bfloat16=FLAGS.precision == "bfloat16",
            compiled=name == "compiled",
        )
        step.run(min(10, IMAGES // FLAGS.batch_size))
        sides[name] = step.run
    return sides


def _compared(speeds):
    """The peer's figures, and the ratio of ours to the faster of its forms, round by round."""
    speeds = {name: np.array(values) for name, values in speeds.items()}
    faster = max(("eager", "compiled"), key=lambda name: np.median(speeds[name]))
    ratios = speeds["ours"] / speeds[faster]
    return {
        **{f"torch_{name}_images_per_second": round(np.median(speeds[name]), 1) for name in ("eager", "compiled")},
        "ratio_to_torch": round(np.median(ratios), 2),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).round(2).tolist(),
    }


if __name__ == "__main__":
    command_line.run(main)
