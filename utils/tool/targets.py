"""Reaching a target: gradual pruning while a network is trained with noise, and an exact choice at the end.

At 20 points of the training, units with the lowest signal-to-noise ratio are removed where the MACs are above a smooth
path; the others adapt in between. Noise and KL divergence only rank the units: those that cost many MACs have a
larger KL weight. A KL weight large enough to remove units by itself overshoots, as many die at once, some epochs later.
"""

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_sbp.layers import truncated_log_normal
from keras_sbp.utils.pruning import Liveness, counting, fit

# How often in a training units are removed, and after which fractions of it the first and the last ones.
REMOVALS, FIRST, LAST = 20, 0.1, 0.7
# The KL weight of a unit is proportional to 1 + PRICE * cost, where the mean cost is 1.
PRICE = 1.0
# A removed unit is marked in its weights, which checkpoints save: a mu within [-20, -19] that is higher the later it
# was removed, and a log sigma that is lower than this by the E theta that it had. Its theta is about exp(-20).
REMOVED_LOG_SIGMA, REMOVED_MU, REMOVED_MU_RANGE = -5.0, -20.0, 1.0
# MACs whose logarithm is this close to the target's are near enough.
NEAR = 0.03

Masks = dict[str, np.ndarray]


class TargetMACs(keras.callbacks.Callback):
    """Removes units from a network with noise while it is trained, until its MACs reach a target.

    The path is linear in the logarithm of the MACs.

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
        costs = counting.relative_costs(self.model)
        for layer in layers:
            layer.kl_weight.assign(layer.initial_kl_weight * (1 + PRICE * costs[layer.name]) / (1 + PRICE))
        self._full = full_macs(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._total = self.params["epochs"] * self.params["steps"]
        self._step = epoch * self.params["steps"]
        layers = fit.noise_layers(self.model)
        self._removed = {layer.name: np.where(is_removed(layer), layer.mu, np.nan) for layer in layers}
        self._log_sigma = {layer.name: np.array(layer.log_sigma) for layer in layers}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        before, self._step = self._step, self._step + 1
        if self._step * REMOVALS // self._total > before * REMOVALS // self._total:
            self._remove_units(self._step / self._total)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._hold()
        if logs is not None:
            logs["macs"] = self._macs()

    def _macs(self) -> int:
        return macs(self.model, {name: np.isnan(mu) for name, mu in self._removed.items()})

    def _remove_units(self, progress: float) -> None:
        self._hold()
        fraction = np.clip((progress - FIRST) / (LAST - FIRST), 0, 1)
        wanted = self._full * (self.target / self._full) ** fraction
        if self._macs() <= wanted * math.exp(NEAR):
            return
        ranking = Ranking(self.model)
        alive = ranking.at(wanted)
        going = [
            (ranking.scores[name][unit], name, unit)
            for name, mu in self._removed.items()
            for unit in np.flatnonzero(np.isnan(mu) & ~alive[name])
        ]
        count = sum(len(mu) for mu in self._removed.values())
        before = sum(int((~np.isnan(mu)).sum()) for mu in self._removed.values())
        theta = {layer.name: e_theta(layer) for layer in fit.noise_layers(self.model)}
        for number, (_, name, unit) in enumerate(sorted(going), before):
            self._removed[name][unit] = REMOVED_MU + REMOVED_MU_RANGE * number / count
            self._log_sigma[name][unit] = REMOVED_LOG_SIGMA - theta[name][unit]
        self._hold()

    def _hold(self) -> None:
        """Undo what the optimizer did to the removed units: its momentum moves them."""
        for layer in fit.noise_layers(self.model):
            mu = self._removed[layer.name]
            if not np.isnan(mu).all():
                layer.mu.assign(np.where(np.isnan(mu), layer.mu, mu))
                layer.log_sigma.assign(np.where(np.isnan(mu), layer.log_sigma, self._log_sigma[layer.name]))


def is_removed(layer: keras.Layer) -> np.ndarray:
    """Which units of a noise layer were removed during training: (units,) bool."""
    mu, log_sigma = map(keras.ops.convert_to_numpy, (layer.mu, layer.log_sigma))
    marked = (log_sigma <= REMOVED_LOG_SIGMA) & (log_sigma >= REMOVED_LOG_SIGMA - 1)
    return (mu <= REMOVED_MU + REMOVED_MU_RANGE) & marked


def e_theta(layer: keras.Layer) -> np.ndarray:
    """The mean of a noise layer's theta, of removed units when they were removed: (units,)."""
    mu, log_sigma = map(keras.ops.convert_to_numpy, (layer.mu, layer.log_sigma))
    mean = keras.ops.convert_to_numpy(truncated_log_normal.mean(mu, log_sigma))
    return np.where(is_removed(layer), REMOVED_LOG_SIGMA - log_sigma, mean)


def unit_scores(noisy: keras.Model) -> dict[str, np.ndarray]:
    """{noise layer's name: (units,)}: signal-to-noise ratios; of removed units mu, which orders them."""
    found = {}
    for layer in fit.noise_layers(noisy):
        # A training that diverged is ended elsewhere.
        ratios = np.nan_to_num(keras.ops.convert_to_numpy(layer.snr()))
        found[layer.name] = np.where(is_removed(layer), layer.mu, ratios)
    return found


def macs(noisy: keras.Model, alive: Masks) -> int:
    """MACs of a network with noise, without the units that are not alive; at least 1."""
    return max(1, Liveness(noisy, {name: mask.astype(np.float32) for name, mask in alive.items()}).multiply_adds())


def full_macs(noisy: keras.Model) -> int:
    """MACs of the network with all its units."""
    return macs(noisy, {name: np.ones(len(score), bool) for name, score in unit_scores(noisy).items()})


def fewest_macs(noisy: keras.Model) -> int:
    """MACs of the network with one unit per noise layer."""
    return macs(noisy, {name: np.arange(len(score)) == 0 for name, score in unit_scores(noisy).items()})


class Ranking:
    """The units of a network with noise in the order in which they are removed.

    Every noise layer keeps its best unit.

    Args:
        noisy: the network.
        scores: {noise layer's name: (units,)}, the least go first. None: those of `unit_scores`.
    """

    def __init__(self, noisy: keras.Model, scores: dict[str, np.ndarray] | None = None):
        self.noisy = noisy
        self.scores = unit_scores(noisy) if scores is None else scores
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
        return min(near, key=lambda position: distance(self.macs(position), target))

    def at(self, target: float) -> Masks:
        """The units that are left at a number of MACs: those above one threshold for all layers, if it is near enough.

        A unit of a wide layer can be worth many MACs. If no threshold comes near, units are removed in order from the
        last position above the target, and a layer whose next unit would go too far keeps the rest.
        """
        nearest = self.nearest(target)
        if distance(self.macs(nearest), target) < NEAR:
            return self.alive(nearest)
        less = self.alive(nearest - (self.macs(nearest) < target))
        order = self._in_order(less)
        found = macs(self.noisy, less)
        while found > target * math.exp(NEAR) and order:
            # Many units may have the same ratio: by bisection up to the first removal that goes far enough or too far.
            last = first_position(
                lambda count: macs(self.noisy, _without(less, order[: count + 1])) <= target * math.exp(NEAR),
                len(order) - 1,
            )
            too_far = macs(self.noisy, _without(less, order[: last + 1])) < target * math.exp(-NEAR)
            less = _without(less, order[: last + (not too_far)])
            found = macs(self.noisy, less)
            order = [(name, unit) for name, unit in order[last + 1 :] if name != order[last][0]]
        return less if distance(found, target) < distance(self.macs(nearest), target) else self.alive(nearest)

    def _in_order(self, alive: Masks) -> list[tuple[str, int]]:
        """The live units, (layer, unit), in the order in which they are removed; each layer's last one stays."""
        found = []
        for name, mask in alive.items():
            units = np.flatnonzero(mask)
            found += [(name, int(unit)) for unit in units[np.argsort(self.scores[name][units])][:-1]]
        return sorted(found, key=lambda each: self.scores[each[0]][each[1]])


def _without(alive: Masks, removed: list[tuple[str, int]]) -> Masks:
    """The units that are left once these are removed, too."""
    found = {name: units.copy() for name, units in alive.items()}
    for name, unit in removed:
        found[name][unit] = False
    return found


def distance(found: float, wanted: float) -> float:
    """How far two numbers of MACs are apart: the difference of their logarithms."""
    return abs(math.log(found / wanted))


def first_position(holds: Callable[[int], bool], last: int) -> int:
    """The first position from 0 to `last` where something holds that holds from some position on; `last` if nowhere."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
