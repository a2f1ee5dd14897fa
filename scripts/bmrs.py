"""Table 1 of BMRS (Wright, Igel, Selvan, NeurIPS 2024) again: is the signal-to-noise ratio a bad criterion?

    python scripts/bmrs.py                            # LeNet5 on MNIST, ten seeds: four hours on one core
    python scripts/bmrs.py --network=mlp
    python scripts/bmrs.py --dataset=cifar10

Their networks, data, Adam, batches and epochs; their KL divergence, which is averaged over units and layers, and the
evidence lower bound's, whose weight is 1 / N. Units are removed once after the training, by the signal-to-noise ratio
and by the evidence, or, as in BMRS, after each of the first two thirds of its epochs. A repeated command continues.
Results: docs/reproduction.md#bmrs
"""

import json
import statistics
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from absl import flags
from keras import layers
from tqdm import tqdm

from keras_sbp.layers.truncated_log_normal import HIGH, LOW
from keras_sbp.utils import experiment, pruning
from keras_sbp.utils.experiment import testing
from keras_sbp.utils.experiment.flags import define_data_dir
from keras_sbp.utils.io import command_line, data, terminal
from keras_sbp.utils.pruning import fit
from keras_sbp.utils.tool import compact, targets

FLAGS = flags.FLAGS
BATCH_SIZE, LEARNING_RATE, NOISE_LEARNING_RATE = 64, 1e-3, 0.02
# They choose the best epoch on a fifth of the training images. Here, the last epoch counts.
FRACTION = 0.8
# Steps per call of TensorFlow; a divisor of those of an epoch, or it traces them again.
STEPS = 25
CRITERIA = ("snr", "evidence")
FLOAT32 = "snr in float32"


class Training(NamedTuple):
    """kl: a multiple of the bound's KL divergence, or None for their average. own_rate: of the noise.

    pruned_by: the criterion by which units are removed while the network is trained, one of CRITERIA or FLOAT32. None:
        after it, by each of CRITERIA.
    """

    kl: float | None
    own_rate: bool
    pruned_by: str | None = None


TRAININGS = {
    "no noise": None,
    "KL averaged": Training(None, False),
    "KL averaged, pruned after each epoch, as in BMRS": Training(None, False, "snr"),
    "KL averaged, pruned after each epoch by the evidence": Training(None, False, "evidence"),
    "KL averaged, pruned after each epoch by BMRS's arithmetic": Training(None, False, FLOAT32),
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
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["training"], row["seed"]) for row in rows}
    wanted = [(training, seed) for seed in range(FLAGS.seeds) for training in TRAININGS]
    with terminal.quiet(path.parent / "log.txt"):
        for training, seed in tqdm([job for job in wanted if job not in done], desc=name, unit="training"):
            found = [{"training": training, "seed": seed} | row for row in run(TRAININGS[training], seed)]
            with open(path, "a") as file:
                file.write("".join(f"{json.dumps(row)}\n" for row in found))
            rows += found
    print(table(rows))


def run(training, seed):
    """Train a network, and test what is left of it by each criterion."""
    keras.utils.set_random_seed(seed)
    (x, y), (x_test, y_test) = images("train"), images("test")
    kept = np.random.default_rng(seed).permutation(len(x))[: round(FRACTION * len(x))]
    x, y = x[kept], y[kept]
    given = model = NETWORKS[FLAGS.network](x.shape[1:])
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    if training:
        model = pruning.insert(model, (training.kl or 1) / len(x))
        noise = fit.noise_layers(model)
        for layer in noise if training.kl is None else []:
            layer.kl_weight.assign(1 / (len(noise) * layer.mu.shape[0]))
        if training.own_rate:
            optimizer = fit.optimizer(optimizer, keras.optimizers.Adam(NOISE_LEARNING_RATE))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=STEPS)
    pruner = RemoveUnits(training.pruned_by) if training and training.pruned_by else None
    model.fit(x, y, BATCH_SIZE, FLAGS.epochs, verbose=0, callbacks=[pruner] if pruner else [])
    found = []
    for criterion in criteria(training):
        if pruner:
            alive = {name: ~units for name, units in pruner.removed.items()}
        else:
            alive = {layer.name: live_units(layer, criterion) for layer in fit.noise_layers(model)}
        smaller = compact.shrink(model, alive) if training else model
        logits = np.concatenate([smaller(batch) for batch in np.array_split(x_test, 10)])
        error = testing.error_rate(logits, y_test)
        gone = 100 - 100 * smaller.count_params() / given.count_params()
        found.append({"criterion": criterion, "parameters_gone": gone, "accuracy": 100 - error})
    return found


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

    def on_epoch_end(self, epoch, logs=None):
        for layer in fit.noise_layers(self.model):
            removed = self.removed[layer.name]
            if epoch < 2 * self.params["epochs"] // 3:
                removed |= ~live_units(layer, self.criterion)
            # Also later: the optimizer's momentum moves them.
            layer.mu.assign(np.where(removed, targets.REMOVED_MU, layer.mu))
            layer.log_sigma.assign(np.where(removed, targets.REMOVED_LOG_SIGMA, layer.log_sigma))


def live_units(layer, criterion):
    """Which units of a noise layer a criterion keeps: (units,) bool."""
    if criterion == FLOAT32:
        return snr_in_float32(*map(np.asarray, (layer.mu, layer.log_sigma))) > 1
    layer.criterion = criterion
    return np.asarray(layer.live_units())


@np.errstate(all="ignore")
def snr_in_float32(mu, log_sigma):
    """The signal-to-noise ratio as BMRS's code computes it (modules/util.py: SNR), and the SBP paper's authors' before.

    It is NaN, which is not above 1, where float32 does not hold a factor: for one, where mu is below -13 sigma.

    Args:
        mu, log_sigma: (units,) float32.
    Returns:
        (units,) float32.
    """
    sigma = np.exp(log_sigma)
    alpha, beta = (LOW - mu) / sigma, (HIGH - mu) / sigma
    mass = normal_cdf(beta) - normal_cdf(alpha)

    def moment(order):
        """E theta^order, times 2 mass exp(-order mu)."""
        at_high = erfcx((order * sigma - beta) * np.float32(0.5**0.5)) * np.exp(order * (HIGH - mu) - beta**2 / 2)
        at_low = erfcx((order * sigma - alpha) * np.float32(0.5**0.5)) * np.exp(order * (LOW - mu) - alpha**2 / 2)
        return at_high - at_low

    return moment(1) / np.sqrt(2 * mass * moment(2) - moment(1) ** 2)


def normal_cdf(z):
    return (1 + np.asarray(keras.ops.erf(z / np.float32(2**0.5)))) / 2


def erfcx(x):
    """exp(x^2) erfc(x), or, as in their code, 1 where float32 does not hold it."""
    exact = np.asarray(x, np.float64)
    series = 1 / (np.abs(exact) * np.sqrt(np.pi))  # of large x, where erfc is 0
    value = np.where(exact > 25, series, np.exp(exact**2) * np.asarray(keras.ops.erfc(exact)))
    value = value.astype(np.float32)
    return np.where(np.isfinite(value), value, np.float32(1))


def images(split):
    """(N, 32, 32, channels) or for the MLP (N, pixels), float32 within [-0.5, 0.5]; and labels."""
    found = data.load(FLAGS.dataset, FLAGS.data_dir, split)
    x = layers.Resizing(32, 32)(found.images)
    x = (np.asarray(x, np.float32) - 127) / 255
    return (x.reshape(len(x), -1) if FLAGS.network == "mlp" else x), found.labels


def lenet5(shape):
    channels = shape[-1]
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6 * channels, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16 * channels, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120 * channels, activation="relu"),
            layers.Dense(84 * channels, activation="relu"),
            layers.Dense(10),
        ]
    )


def mlp(shape):
    hidden = [layers.Dense(50, activation="tanh") for _ in range(6)]
    return keras.Sequential([keras.Input(shape), *hidden, layers.Dense(10)])


NETWORKS = {"lenet5": lenet5, "mlp": mlp}


def table(rows):
    lines = ["| training | units removed by | seeds | parameters gone % | accuracy % |", "|---|---|--:|--:|--:|"]
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
