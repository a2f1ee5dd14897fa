"""How fast training runs: steps of a network on made-up images for some seconds, and one JSON line about them."""

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
from absl import flags
from tqdm import tqdm

from nets import lenet5, lenet_fc, vgglike
from utils import command_line, cost, data, structured_bp, towers, training

FLAGS = flags.FLAGS
NETS = {"lenet-fc": lenet_fc.lenet_fc, "lenet5": lenet5.lenet5, "vgglike": vgglike.vgglike}
IMAGES = 10_000
# A training step reads the weights three times: forwards, for the gradient of the inputs and for that of the weights.
FLOPS_A_MULTIPLY_ADD = 6

flags.DEFINE_enum("net", "lenet5", NETS, "The network.")
flags.DEFINE_enum("method", "sbp", ["original", "sbp"], "With noise after every unit, or without.")
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1, upper_bound=IMAGES)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "bfloat16 is Keras's mixed_bfloat16.")
flags.DEFINE_float("seconds", 20, "How long to measure, after the graph has been made and warmed up.", lower_bound=0.1)
flags.DEFINE_float("learning_rate", 1e-3, "Adam's rate for the weights.")
structured_bp.define_flags(noise_learning_rate=5e-2, kl_scale="1")


def main():
    keras.config.set_dtype_policy("mixed_bfloat16" if FLAGS.precision == "bfloat16" else "float32")
    strategy, build = towers.strategy(), NETS[FLAGS.net]
    model = build(unit=structured_bp.unit) if FLAGS.method == "sbp" else build()
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(IMAGES, *model.inputs[0].shape[1:]), dtype=np.uint8)
    labels = generator.integers(data.CLASSES, size=IMAGES, dtype=np.int32)
    step = training.Step(
        model,
        [towers.copies(strategy, array) for array in (images, labels)],
        IMAGES,
        prepare=lambda images, seed: data.scaled(images),
        rate=structured_bp.rate,
        kl=structured_bp.kl(model) if FLAGS.method == "sbp" else None,
        batch_size=FLAGS.batch_size,
        epochs=1000,
        seed=0,
        strategy=strategy,
    )
    start = time.perf_counter()
    step.run(0, 0, 1)
    compile_seconds = time.perf_counter() - start

    chunk = min(10, step.steps)
    # TensorFlow learns in its first hundred steps which operations are cheap.
    for _ in range(-(-100 // chunk)):
        step.run(0, 0, chunk)
    steps, start, elapsed = 0, time.perf_counter(), 0.0
    with tqdm(total=FLAGS.seconds, unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s") as bar:
        while elapsed < FLAGS.seconds:
            step.run(1, 0, chunk)[0].numpy()
            steps += chunk
            elapsed = time.perf_counter() - start
            bar.update(min(elapsed, FLAGS.seconds) - bar.n)
    images_per_second = steps * FLAGS.batch_size / elapsed
    result = {
        "net": FLAGS.net,
        "method": FLAGS.method,
        "batch_size": FLAGS.batch_size,
        "precision": FLAGS.precision,
        "steps": steps,
        "images_per_second": round(images_per_second, 1),
        "gflops_per_second": round(images_per_second * cost.multiply_adds(model) * FLOPS_A_MULTIPLY_ADD / 1e9, 2),
        "compile_seconds": round(compile_seconds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    command_line.run(main)
