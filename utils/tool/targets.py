"""Reaching a target: a training that heads for it slowly, and the exact choice of units at its end.

Units die in avalanches, some epochs after the KL weight that killed them. So what is controlled is not the MACs of the
live units but a smooth forecast of them: a unit of signal-to-noise ratio r counts as r^2 / (1 + r^2) of a unit. The
target is met at the end, by one threshold of the signal-to-noise ratio for the units of all layers.
"""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_sbp.utils.pruning import Liveness, fit

# The forecast reaches the target after this fraction of the training, and is held there.
ARRIVAL = 0.7
# How often in a training the KL weight is corrected, and by how much of the difference of logarithms.
CORRECTIONS, GAIN = 60, 0.3
# What the log of the KL weight's factor is kept within.
FACTOR_BOUNDS = (-4.0, 5.0)

Masks = dict[str, np.ndarray]


class TargetMACs(keras.callbacks.Callback):
    """Adjusts the KL weight of all noise layers so that the MACs come down to a target.

    The path is linear in the logarithm of the MACs. The state is in the noise layers' `kl_weight`: with the model's
    weights, everything is saved.

    Args:
        target: MACs for one example.
    Raises:
        ValueError: when training begins, there is no noise, or it was inserted with a kl_weight of 0.
    """

    def __init__(self, target: float):
        super().__init__()
        self.target = target

    def on_train_begin(self, logs: dict | None = None) -> None:
        layers = fit.noise_layers(self.model)
        if not layers or not all(layer.initial_kl_weight for layer in layers):
            raise ValueError(f"{self.model.name} has no noise with a kl_weight: train what insert(kl_weight=...) gives")
        self._full = macs(self.model, {layer.name: np.ones(layer.mu.shape, bool) for layer in layers})
        self.forecast = forecast(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._total = self.params["epochs"] * self.params["steps"]
        self._step = epoch * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        before, self._step = self._step, self._step + 1
        if self._step * CORRECTIONS // self._total > before * CORRECTIONS // self._total:
            self._correct(self._step / self._total)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["macs"] = self.forecast

    def _correct(self, progress: float) -> None:
        wanted = math.log(self._full) + min(progress / ARRIVAL, 1) * math.log(self.target / self._full)
        self.forecast = forecast(self.model)
        change = GAIN * (math.log(self.forecast) - wanted)
        for layer in fit.noise_layers(self.model):
            factor = math.log(float(layer.kl_weight.value) / layer.initial_kl_weight) + change
            layer.kl_weight.assign(layer.initial_kl_weight * math.exp(np.clip(factor, *FACTOR_BOUNDS)))


def snrs(noisy: keras.Model) -> dict[str, np.ndarray]:
    """{noise layer's name: (units,) signal-to-noise ratios}."""
    return {layer.name: keras.ops.convert_to_numpy(layer.snr()) for layer in fit.noise_layers(noisy)}


def forecast(noisy: keras.Model) -> float:
    """MACs of the network with the best units of each noise layer, as many as sum up to r^2 / (1 + r^2)."""
    alive = {}
    for name, snr in snrs(noisy).items():
        square = np.square(np.nan_to_num(snr.astype(np.float64)))  # a training that diverged is ended elsewhere
        count = max(1, round(float(np.sum(square / (1 + square)))))
        alive[name] = np.zeros(len(snr), bool)
        alive[name][np.argsort(snr)[::-1][:count]] = True
    return macs(noisy, alive)


def macs(noisy: keras.Model, alive: Masks) -> int:
    """MACs of a network with noise, without the units that are not alive; at least 1."""
    return max(1, Liveness(noisy, {name: mask.astype(np.float32) for name, mask in alive.items()}).multiply_adds())


def full_macs(noisy: keras.Model) -> int:
    """MACs of the network with all its units."""
    return macs(noisy, {name: np.ones(len(snr), bool) for name, snr in snrs(noisy).items()})


def fewest_macs(noisy: keras.Model) -> int:
    """MACs of the network with one unit per noise layer."""
    return macs(noisy, {name: np.arange(len(snr)) == 0 for name, snr in snrs(noisy).items()})


class Ranking:
    """The units of a network with noise in the order in which they go.

    Every noise layer keeps its best unit.

    Args:
        noisy: the network.
        scores: {noise layer's name: (units,)}, the least go first. None: signal-to-noise ratios.
    """

    def __init__(self, noisy: keras.Model, scores: dict[str, np.ndarray] | None = None):
        self.noisy = noisy
        self.scores = snrs(noisy) if scores is None else scores
        free = [score[np.arange(len(score)) != score.argmax()] for score in self.scores.values()]
        self.thresholds = np.r_[-np.inf, np.unique(np.concatenate(free))]
        self._macs = {}

    def alive(self, position: int) -> Masks:
        """The units that are left of the network at a position: 0 for all, len(thresholds) - 1 for the fewest."""
        threshold = self.thresholds[position]
        return {
            name: (score > threshold) | (np.arange(len(score)) == score.argmax()) for name, score in self.scores.items()
        }

    def macs(self, position: int) -> int:
        if position not in self._macs:
            self._macs[position] = macs(self.noisy, self.alive(position))
        return self._macs[position]

    def nearest(self, target: float) -> int:
        """The position whose MACs are nearest to a target, in their logarithm."""
        last = len(self.thresholds) - 1
        first = first_position(lambda position: self.macs(position) <= target, last)
        near = [position for position in (first - 1, first) if 0 <= position <= last]
        return min(near, key=lambda position: abs(math.log(self.macs(position) / target)))


def first_position(holds: Callable[[int], bool], last: int) -> int:
    """The first position from 0 to `last` where something holds that holds from some position on; `last` if nowhere."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def random_scores(noisy: keras.Model, seed: int) -> dict[str, np.ndarray]:
    """For comparison: units in random order."""
    rng = np.random.default_rng(seed)
    return {name: rng.random(len(snr)) for name, snr in snrs(noisy).items()}
