"""What a report measures: every network in the same way, on the same test data."""

import warnings

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.io import networks
from keras_sbp.utils.pruning import counting, graph, rules
from keras_sbp.utils.tool import latency
from keras_sbp.utils.tool.choice import DROP, LATENCY, MACS, Chosen, Goal
from keras_sbp.utils.tool.examples import Arrays, Parts, Stream, example
from keras_sbp.utils.tool.report import Measurements, Report, Units
from keras_sbp.utils.tool.tasks import Score, Task

# How a report names the dimensions that each head has: NAME (values).
DIMENSIONS = {"query": " (queries and keys)", "value": " (values)"}


def network(model: keras.Model, task: Task, test: Arrays | Stream) -> tuple[Measurements, Score]:
    """What is measured of a network; and its score on the test data, example by example."""
    score = task.evaluate(model, test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not counted, the report says so
        macs = counting.multiply_adds(model)
    # A copy is not compiled: the state of an optimizer is not part of the network.
    size = len(networks.content(graph.clone(model)))
    return Measurements(score.value, macs, model.count_params(), size), score


def uncounted(model: keras.Model) -> list[str]:
    """Layers whose MACs are not known: their classes."""
    found = set()
    for node in graph.nodes(graph.flatten_nested(model)):
        widths = [[rules.width(tensor) for tensor in side] for side in (node.input_tensors, node.outputs)]
        if rules.of(node).multiply_adds(*widths) is None:
            found.add(type(node.operation).__name__)
    return sorted(found)


def units(model: keras.Model, smaller: keras.Model, exclude: tuple[str, ...]) -> list[Units]:
    """Of each layer with units, how many there are before and after, and why all of them stay."""
    why, found = pruning.unprunable(model, exclude), []
    before, after = (_inner_units(each) | counting.units(each) for each in (model, smaller))
    for node in graph.nodes(graph.flatten_nested(model)):
        name = node.operation.name
        if name in before:
            found.append(Units(name, before[name], after.get(name, 0), why.get(name, "")))
            parts = (f"{name}{part}" for part in DIMENSIONS.values())
            found += [Units(part, before[part], after.get(part, 0)) for part in parts if part in before]
        elif name in why:
            width = rules.width(node.outputs[0])
            found.append(Units(name, width, width, why[name]))
    return list({each.layer: each for each in found}.values())


def _inner_units(model: keras.Model) -> dict[str, int]:
    """Units of recurrent layers, in each direction; heads of attention, dimensions of each; columns of embeddings."""
    found = {}
    for node in graph.nodes(graph.flatten_nested(model)):
        layer = getattr(node.operation, "forward_layer", node.operation)
        for name in ("num_heads", "num_query_heads", "output_dim", "units"):
            if isinstance(layer, keras.layers.Layer) and isinstance(getattr(layer, name, None), int):
                found.setdefault(node.operation.name, getattr(layer, name))
    for path, shape in counting.kernels(model).items():
        *_, name, projection = ("", *path.split("/"))
        if name in found and projection in DIMENSIONS:
            found[f"{name}{DIMENSIONS[projection]}"] = shape[-1]
    return found


def report(
    model: keras.Model,
    smaller: keras.Model,
    control: keras.Model | None,
    task: Task,
    parts: Parts,
    goal: Goal,
    chosen: Chosen,
    given: tuple[Measurements, Score],
    exclude: tuple[str, ...],
) -> Report:
    """The report of a smaller network; `given`: what `network` measured of the network as given."""
    found = [given, *(network(each, task, parts.test) for each in (control, smaller) if each)]
    (before, score_before), *_, (after, score_after) = found
    compared = [each for each, _ in found]
    not_measured = None
    try:
        models = [model, *([control] if control else []), smaller]
        for each, milliseconds in zip(compared, latency.milliseconds(models, example(model, parts.test))):
            each.latency = milliseconds
    except latency.NotMeasured as error:
        not_measured = str(error)
    missing, remarks = uncounted(model), list(chosen.warnings)
    notes = list(parts.notes) + ([f"no latency: {not_measured}"] if not_measured else [])
    lost = task.drop(before.score, after.score)
    if goal.kind == DROP and lost > goal.value:
        remarks.append(
            f"on the test data, {lost:.2f} are lost: {lost - goal.value:.2f} more than max_drop={goal.value:g}"
        )
    margin = None if score_before.right is None else _margin(score_before, score_after)
    if goal.kind == DROP and margin and margin > max(goal.value, 0.1):
        remarks.append(
            f"a drop of {goal.value:g} points cannot be told from none on {parts.test.count} test examples: the 95 % "
            f"interval is ± {margin:.2f}"
        )
    # Of few test examples, a loss may be chance, too.
    usable = task.is_at_chance(score_before) or not task.is_at_chance(score_after) or lost <= (margin or 0.0)
    if not usable:
        remarks.append(
            f"the smaller network cannot be told from chance on {parts.test.count} test examples "
            f"({after.score:.1f} %): too much was removed, ask for less"
        )
    counts = {name: getattr(parts, name).count for name in ("train", "validation", "test")}
    return Report(
        task=f"{task.kind}, {task.source}", metric=task.metric, examples=counts,
        target={"asked": str(goal), "reached": _reached(goal, before, after, chosen, missing)},
        before=before, after=after, control=compared[1] if control else None, margin=margin,
        units=units(model, smaller, exclude), tradeoff=chosen.tradeoff, uncounted=missing, not_measured=not_measured,
        notes=notes, warnings=remarks, settings={}, usable=usable,
    )  # fmt: skip


def _reached(goal: Goal, before: Measurements, after: Measurements, chosen: Chosen, missing: list[str]) -> str:
    if goal.kind == LATENCY and after.latency:
        return f"{before.latency / after.latency:.2f}x" if goal.relative else f"{after.latency:.3g} ms"
    if goal.kind == DROP:
        return f"{chosen.drop:.2f} on the validation data"
    counted = f", {', '.join(missing)} not counted" if missing else ""
    return f"{before.macs / max(after.macs, 1):.2f}x{counted}" if goal.kind == MACS else "?"


def _margin(first: Score, second: Score) -> float:
    """Half of the 95 % interval of the difference of two accuracies on the same examples, in points.

    A stream may shuffle them: then they are not compared one by one, and the interval is wider.
    """
    if np.array_equal(first.labels, second.labels):
        variance = _variance(first.right - second.right, first.weights)
    else:
        variance = _variance(first.right, first.weights) + _variance(second.right, second.weights)
    return 100 * 1.96 * variance**0.5


def _variance(values: np.ndarray, weights: np.ndarray | None) -> float:
    """That of the weighted mean of values."""
    shares = np.full(len(values), 1 / len(values)) if weights is None else weights / max(1, weights.sum())
    return float(np.sum((shares * (values - np.dot(shares, values))) ** 2))
