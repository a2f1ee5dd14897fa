"""What was asked for, and which units are removed for it once the training is done."""

import math
import zlib
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.pruning import groups
from keras_sbp.utils.tool import compact, latency, targets
from keras_sbp.utils.tool.examples import Parts, example
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.report import Point
from keras_sbp.utils.tool.targets import Masks, Ranking
from keras_sbp.utils.tool.training import Trainer

MACS, LATENCY, DROP = "MACs", "latency", "drop"
# With max_drop, training removes units down to this many times fewer MACs; the choice takes some back or removes more.
DROP_PATH = 10.0
# MACs of the trade-off's points, and of what is tried for max_drop: how many times fewer.
RATIOS = tuple(2 ** (number / 3) for number in range(24))


class Goal(NamedTuple):
    """What was asked for.

    kind: MACS, LATENCY, DROP; value: times, milliseconds or points; relative: of a latency, whether it is times. macs:
    what the training heads for.
    """

    kind: str
    value: float
    relative: bool = True
    macs: float = 0.0

    def __str__(self) -> str:
        if self.kind == MACS:
            return f"{self.value:g}x fewer MACs"
        if self.kind == LATENCY:
            return f"{self.value:g}x lower latency" if self.relative else f"{self.value:g} ms"
        return f"a drop of at most {self.value:g}"

    def with_macs(self, model: keras.Model, noisy: keras.Model, parts: Parts) -> "Goal":
        """The goal with the MACs that training heads for.

        Raises:
            Refused: it cannot be reached, whatever is removed.
        """
        full, fewest = targets.full_macs(noisy), targets.fewest_macs(noisy)
        if fewest >= full:
            raise Refused(f"nothing can be removed from {model.name}: its layers have one unit each{_staying(model)}")
        if self.kind == MACS:
            if full / self.value < 0.98 * fewest:
                raise Refused(
                    f"target={self.value:g} cannot be reached: with one unit left per layer it is "
                    f"{full / fewest:.2f}x{_staying(model)}"
                )
            return self._replace(macs=full / self.value)
        if self.kind == LATENCY:
            return self._replace(macs=_macs_of_latency(self, model, noisy, parts))
        return self._replace(macs=max(full / DROP_PATH, 1.1 * fewest))


class Chosen(NamedTuple):
    """smaller: the network, fine-tuned. drop: on the validation data, if that was asked for."""

    smaller: keras.Model
    macs: int
    drop: float | None
    tradeoff: list[Point]
    warnings: tuple[str, ...] = ()


def goal(target: float | None, target_latency: float | str | None, max_drop: float | None) -> Goal:
    """The goal that these arguments of `prune` stand for.

    Raises:
        Refused: there are several, or it makes no sense.
    """
    given = [value for value in (target, target_latency, max_drop) if value is not None]
    if len(given) > 1:
        raise Refused("give one of target, target_latency and max_drop, and see in the report what it does to the rest")
    if target is not None:
        value = _number(target, "target")
        if value <= 1:
            raise Refused(f"target={target}: give how many times fewer MACs, a number above 1")
        return Goal(MACS, value)
    if target_latency is not None:
        relative = str(target_latency).endswith("x")
        value = _number(str(target_latency).removesuffix("x").removesuffix("ms"), "target_latency")
        if value <= relative:
            raise Refused(f'target_latency={target_latency}: give milliseconds, or "2x" for twice as fast')
        return Goal(LATENCY, value, relative)
    value = 1.0 if max_drop is None else _number(max_drop, "max_drop")
    if value < 0:
        raise Refused(f"max_drop={max_drop}: give the points that may be lost, 0 or more")
    return Goal(DROP, value)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Refused(f"{name}={value} is not a number")
    return number


def _staying(model: keras.Model) -> str:
    why = pruning.unprunable(model)
    unsaid = (groups.OUTPUT, groups.GOES_WITH)
    reasons = [f"{name} ({reason})" for name, reason in why.items() if not reason.startswith(unsaid)]
    return f"; all units stay of {', '.join(reasons[:4])}{' and others' * (len(reasons) > 4)}" if reasons else ""


def choose(goal: Goal, noisy: keras.Model, trainer: Trainer, model: keras.Model) -> Chosen:
    """Remove units and fine-tune what is left."""
    ranking = Ranking(noisy)
    points = tradeoff(ranking, trainer)
    if goal.kind == DROP:
        return _by_drop(goal, ranking, trainer, model, points)
    alive = ranking.at(goal.macs) if goal.kind == MACS else _by_latency(goal, ranking, model, trainer.parts)
    network, macs = compact.trainable(noisy, alive), targets.macs(noisy, alive)
    trainer.without_noise(network, _fine_tuning_of(alive))
    warnings = ()
    if goal.kind == MACS and targets.distance(macs, goal.macs) > targets.NEAR:
        warnings = ("this is as near to the target as whole units come in their order: one more would go too far",)
    return Chosen(compact.shrink(noisy, alive, network), macs, None, points, warnings)


def _fine_tuning_of(alive: Masks) -> str:
    """The name of the fine-tuning of these units, and of its directory."""
    return f"fine-tuning-{zlib.crc32(np.concatenate(list(alive.values())).tobytes())}"


def positions(ranking: Ranking) -> list[int]:
    """Some of a ranking, evenly in the logarithm of the MACs, from all units to the fewest."""
    last = len(ranking.thresholds) - 1
    full, fewest = ranking.macs(0), ranking.macs(last)
    return sorted({ranking.nearest(full / ratio) for ratio in RATIOS if full / ratio >= fewest} | {0})


def tradeoff(ranking: Ranking, trainer: Trainer) -> list[Point]:
    """Score over MACs, on the validation data, before fine-tuning."""
    whole = {name: np.ones(len(score), bool) for name, score in ranking.scores.items()}
    network = compact.trainable(ranking.noisy, whole)
    fixed = {layer.name: layer for layer in network.layers if isinstance(layer, compact.Fixed)}
    factors = {name: layer.multiplier() for name, layer in fixed.items()}
    points = []
    for position in positions(ranking):
        alive = ranking.alive(position)
        for name, layer in fixed.items():
            layer.set_weights([factors[name] * alive[name][layer.kept]])
        score = trainer.task.evaluate(network, trainer.parts.validation).value
        points.append(Point(ranking.macs(position), score))
    return points


def _by_drop(goal: Goal, ranking: Ranking, trainer, model: keras.Model, points: list[Point]) -> Chosen:
    """The smallest network that loses no more than asked for, by bisection; each that is tried is fine-tuned."""
    before = trainer.task.evaluate(model, trainer.parts.validation).value
    tried, candidates = {}, positions(ranking)

    def too_much(number: int) -> bool:
        alive = ranking.alive(candidates[number])
        network = compact.trainable(ranking.noisy, alive)
        trainer.without_noise(network, _fine_tuning_of(alive))
        drop = trainer.task.drop(before, trainer.task.evaluate(network, trainer.parts.validation).value)
        tried[number] = network, drop
        return drop > goal.value

    first = targets.first_position(too_much, len(candidates) - 1)
    if first not in tried:
        too_much(first)
    holding = [number for number, (_, drop) in tried.items() if drop <= goal.value]
    if not holding:
        warning = f"no smaller network loses at most {goal.value:g}: the network stays as it is; allow more"
        return Chosen(pruning.shrink(model), ranking.macs(0), 0.0, points, (warning,))
    number = max(holding)
    network, drop = tried[number]
    smaller = compact.shrink(ranking.noisy, ranking.alive(candidates[number]), network)
    return Chosen(smaller, ranking.macs(candidates[number]), drop, points)


def _latency_reached(goal: Goal, milliseconds: list[float]) -> float:
    """How far a latency is below the goal: 1 exactly there, more if faster."""
    before, after = milliseconds
    return before / after / goal.value if goal.relative else goal.value / after


def _by_latency(goal: Goal, ranking: Ranking, model: keras.Model, parts: Parts) -> Masks:
    """The units of the largest network that is fast enough, by bisection."""

    def fast_enough(position: int) -> bool:
        smaller = compact.shrink(ranking.noisy, ranking.alive(position))
        return _latency_reached(goal, latency.milliseconds([model, smaller], example(model, parts.test))) >= 1

    return ranking.alive(targets.first_position(fast_enough, len(ranking.thresholds) - 1))


def _macs_of_latency(goal: Goal, model: keras.Model, noisy: keras.Model, parts: Parts) -> float:
    """MACs at which the network would be as fast as asked for, if all layers became narrower alike.

    Raises:
        Refused: LiteRT does not run it, or it is too slow with one unit per layer.
    """
    scores = {name: np.argsort(np.argsort(-score)) / len(score) for name, score in targets.unit_scores(noisy).items()}
    even = Ranking(noisy, {name: 1 - order for name, order in scores.items()})
    last = len(even.thresholds) - 1

    def reached(position: int) -> float:
        smaller = compact.shrink(noisy, even.alive(position))
        return _latency_reached(goal, latency.milliseconds([model, smaller], example(model, parts.test)))

    try:
        most = reached(last)
        if most < 1:
            best = f"{most * goal.value:.2f}x" if goal.relative else f"{goal.value / most:.3g} ms"
            raise Refused(f"{goal} cannot be reached: with one unit left per layer it is {best}{_staying(model)}")
    except latency.NotMeasured as error:
        raise Refused(f"target_latency: {error}; give target or max_drop") from None
    low, high = 0, last
    while high - low > last / 16:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= 1 else (middle, high)
    return even.macs((low + high) // 2)
