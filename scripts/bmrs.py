"""Table 1 of BMRS (Wright, Igel, Selvan, NeurIPS 2024) again: is the signal-to-noise ratio a bad criterion?

    python scripts/bmrs.py                            # LeNet5 on MNIST; each of 80 training runs takes minutes
    python scripts/bmrs.py --network=mlp
    python scripts/bmrs.py --dataset=cifar10

Their networks, data, Adam, batches and epochs; their KL divergence, which is averaged over units and layers, and the
evidence lower bound's, whose weight is 1 / N. Units are removed once after the training, by the signal-to-noise ratio
and by the evidence, or, as in BMRS, after each of the first two thirds of its epochs; and one training has noise for
each position, as in BMRS. A repeated command continues. Results: docs/reproduction.md#bmrs
"""

import json
import statistics
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from absl import flags
from keras import layers, ops
from tqdm import tqdm

from keras_sbp.layers import normal
from keras_sbp.layers.sbp import SBP
from keras_sbp.layers.truncated_log_normal import HIGH, LOW
from keras_sbp.utils import experiment, pruning
from keras_sbp.utils.experiment import testing
from keras_sbp.utils.experiment.flags import define_data_dir
from keras_sbp.utils.io import checkpoint, command_line, data, terminal
from keras_sbp.utils.pruning import fit
from keras_sbp.utils.tool import compact, targets

FLAGS = flags.FLAGS
BATCH_SIZE, LEARNING_RATE, NOISE_LEARNING_RATE = 64, 1e-3, 0.02
# They choose the best epoch on a fifth of the training images. Here, the last epoch counts.
FRACTION = 0.8
# Steps per call of TensorFlow; a divisor of those of an epoch, or it traces them again.
STEPS = 25
CRITERIA = ("snr", "evidence")


class Training(NamedTuple):
    """kl: a multiple of the bound's KL divergence, or None for their average. own_rate: of the noise.

    pruned_by: the criterion by which units are removed while the network is trained. None: after it, by each.
    everywhere: noise is drawn for each image and position, see `NoiseEverywhere`.
    """

    kl: float | None
    own_rate: bool
    pruned_by: str | None = None
    everywhere: bool = False


TRAININGS = {
    "no noise": None,
    "KL averaged": Training(None, False),
    "KL averaged, pruned after each epoch": Training(None, False, "snr"),
    "KL averaged, pruned after each epoch by the evidence": Training(None, False, "evidence"),
    "KL averaged, pruned after each epoch, noise for each image and position": Training(
        None, False, "snr", everywhere=True
    ),
    "the bound's KL": Training(1, False),
    "the bound's KL, noise at its own rate": Training(1, True),
    "40 x KL, noise at its own rate": Training(40, True),
}

flags.DEFINE_enum("network", "lenet5", ["lenet5", "mlp"], "LeNet5 of 6-16-120-84 filters and units, or an MLP.")
flags.DEFINE_enum("dataset", "mnist", ["mnist", "cifar10", "digits"], "The data set; digits needs no download.")
flags.DEFINE_integer("epochs", 30, "Epochs; theirs are 20, and 10 more without pruning.", lower_bound=1)
flags.DEFINE_integer("seeds", 10, "Seeds of each training.", lower_bound=1)
flags.DEFINE_string("checkpoints_dir", None, "Folder of the folders bmrs-NETWORK-DATASET. Default: checkpoints.")
define_data_dir()


def main():
    name = f"bmrs-{FLAGS.network}-{FLAGS.dataset}"
    path = Path(FLAGS.checkpoints_dir or experiment.ROOT / "checkpoints") / name / f"{FLAGS.epochs}-epochs.jsonl"
    wanted = [(training, seed) for seed in range(FLAGS.seeds) for training in TRAININGS]
    with checkpoint.lock_directory(path.parent), terminal.quiet(path.parent / "log.txt"):
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        done = {(row["training"], row["seed"]) for row in rows}
        for training, seed in tqdm([job for job in wanted if job not in done], desc=name, unit="training"):
            rows += [{"training": training, "seed": seed} | row for row in run(TRAININGS[training], seed)]
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            checkpoint.write(path, lambda file, lines=lines: file.write(lines.encode()))
    print(table(rows))


def run(training, seed):
    """Train a network, and test what is left of it by each criterion."""
    keras.utils.set_random_seed(seed)
    (x, y), (x_test, y_test) = images("train"), images("test")
    kept = np.random.default_rng(seed).permutation(len(x))[: round(FRACTION * len(x))]
    x, y = x[kept], y[kept]
    build, shape = NETWORKS[FLAGS.network], x.shape[1:]
    model = with_noise(build, shape, training, len(x)) if training else build(shape)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    if training and training.own_rate:
        optimizer = fit.optimizer(optimizer, keras.optimizers.Adam(NOISE_LEARNING_RATE))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=STEPS)
    pruner = RemoveUnits(training.pruned_by) if training and training.pruned_by else None
    model.fit(x, y, BATCH_SIZE, FLAGS.epochs, verbose=0, callbacks=[pruner] if pruner else [])
    found, parameters = [], build(shape).count_params()
    for criterion in criteria(training):
        if pruner:
            smaller = pruner.shrink()
        else:
            for layer in fit.noise_layers(model):
                layer.criterion = criterion
            smaller = pruning.shrink(model) if training else model
        logits = np.concatenate([smaller(batch) for batch in np.array_split(x_test, 10)])
        error = testing.error_rate(logits, y_test)
        gone = 100 - 100 * smaller.count_params() / parameters
        found.append({"criterion": criterion, "parameters_gone": gone, "accuracy": 100 - error})
    return found


def with_noise(build, shape, training, images):
    """A new network with noise, and the weights of its KL divergence for a number of training images."""
    kl_weight = (training.kl or 1) / images
    if training.everywhere:
        model = build(shape, lambda: [NoiseEverywhere(kl_weight)])
    else:
        model = pruning.insert(build(shape), kl_weight)
    noise = fit.noise_layers(model)
    for layer in noise if training.kl is None else []:
        layer.kl_weight.assign(1 / (len(noise) * layer.mu.shape[0]))
    return model


def criteria(training):
    """By which units are removed from the same training."""
    if not training:
        return ("",)
    return (training.pruned_by,) if training.pruned_by else CRITERIA


class RemoveUnits(keras.callbacks.Callback):
    """Removes dead units for good after each of the first two thirds of the epochs: theta is about exp(-20) from there.

    BMRS's code masks units by their noise after each of 20 epochs, and trains for 10 more with the last mask.
    """

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def on_train_begin(self, logs=None):
        self.removed = {layer.name: np.zeros(layer.mu.shape[0], bool) for layer in fit.noise_layers(self.model)}
        for layer in fit.noise_layers(self.model):
            layer.criterion = self.criterion

    def on_epoch_end(self, epoch, logs=None):
        for layer in fit.noise_layers(self.model):
            removed = self.removed[layer.name]
            if epoch < 2 * self.params["epochs"] // 3:
                removed |= ~np.asarray(layer.live_units())
            # Also later: the optimizer's momentum moves them.
            layer.mu.assign(np.where(removed, targets.REMOVED_MU, layer.mu))
            layer.log_sigma.assign(np.where(removed, targets.REMOVED_LOG_SIGMA, layer.log_sigma))

    def shrink(self):
        """The network without the removed units. The others stay, whatever has become of them in the last epochs."""
        for layer in fit.noise_layers(self.model):
            layer.criterion, layer.threshold = "snr", 0.0
        return compact.shrink(self.model, {name: ~units for name, units in self.removed.items()})


class NoiseEverywhere(SBP):
    """SBP whose noise is drawn for each image and position, as in BMRS's code; SBP's units share a sample over a batch.

    As there, quantiles are clipped to [1e-5, 1 - 1e-5].
    """

    def call(self, inputs, training=False):
        if not training:
            return super().call(inputs)
        sigma = ops.exp(self.log_sigma.value)
        below, up_to = (normal.cdf((end - self.mu.value) / sigma) for end in (LOW, HIGH))
        u = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator)
        p = ops.clip(below + u * (up_to - below), 1e-5, 1 - 1e-5)
        log_theta = self.mu.value + sigma * 2**0.5 * ops.erfinv(2 * p - 1)
        return inputs * ops.exp(ops.clip(log_theta, LOW, HIGH))


def images(split):
    """(N, 32, 32, channels) or for the MLP (N, pixels), float32 within [-0.5, 0.5], CIFAR-10 [-1, 1]; and labels."""
    found = data.load(FLAGS.dataset, FLAGS.data_dir, split)
    x = np.asarray(layers.Resizing(32, 32)(found.images), np.float32)
    x = x / 127.5 - 1 if FLAGS.dataset == "cifar10" else (x - 127) / 255
    return (x.reshape(len(x), -1) if FLAGS.network == "mlp" else x), found.labels


def lenet5(shape, noise=list):
    """noise: a function that makes the layers after each activation."""
    channels = shape[-1]
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6 * channels, 5, activation="relu"),
            *noise(),
            layers.MaxPooling2D(),
            layers.Conv2D(16 * channels, 5, activation="relu"),
            *noise(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120 * channels, activation="relu"),
            *noise(),
            layers.Dense(84 * channels, activation="relu"),
            *noise(),
            layers.Dense(10),
        ]
    )


def mlp(shape, noise=list):
    hidden = [layer for _ in range(6) for layer in (layers.Dense(50, activation="tanh"), *noise())]
    return keras.Sequential([keras.Input(shape), *hidden, layers.Dense(10)])


NETWORKS = {"lenet5": lenet5, "mlp": mlp}


def table(rows):
    lines = ["| training | units removed by | seeds | parameters removed % | accuracy % |", "|---|---|--:|--:|--:|"]
    for training, noisy in TRAININGS.items():
        for criterion in criteria(noisy):
            found = [row for row in rows if (row["training"], row["criterion"]) == (training, criterion)]
            if found:
                cells = [mean_and_deviation([row[key] for row in found]) for key in ("parameters_gone", "accuracy")]
                lines.append(f"| {training} | {criterion or '-'} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_and_deviation(values):
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


if __name__ == "__main__":
    command_line.run(main)
