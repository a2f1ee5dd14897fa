"""The figures of a report: the same evaluation of every network."""

import warnings

import keras
import numpy as np

from keras_sbp.utils import pruning
from keras_sbp.utils.io import networks
from keras_sbp.utils.pruning import counting, graph, rules
from keras_sbp.utils.tool import latency
from keras_sbp.utils.tool.choice import DROP, LATENCY, MACS, Chosen, Goal
from keras_sbp.utils.tool.examples import Arrays, Parts, Stream, example
from keras_sbp.utils.tool.report import Figures, Report, Units
from keras_sbp.utils.tool.tasks import REGRESSION, Task


def figures(model: keras.Model, task: Task, test: Arrays | Stream) -> Figures:
    """A network's score on the test data, and its sizes."""
    score = task.evaluate(model, test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not counted, the report says so
        macs = counting.multiply_adds(model)
    # A copy is not compiled: the state of an optimizer is not part of the network.
    size = len(networks.content(graph.clone(model)))
    return Figures(score.value, macs, model.count_params(), size)


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
    why, after = pruning.unprunable(model, exclude), counting.units(smaller)
    before = counting.units(model)
    found = []
    for node in graph.nodes(graph.flatten_nested(model)):
        name = node.operation.name
        if name in before:
            found.append(Units(name, before[name], after.get(name, 0), why.get(name, "")))
        elif name in why:
            width = rules.width(node.outputs[0])
            found.append(Units(name, width, width, why[name]))
    return list({each.layer: each for each in found}.values())


def report(
    model: keras.Model,
    smaller: keras.Model,
    control: keras.Model | None,
    task: Task,
    parts: Parts,
    goal: Goal,
    chosen: Chosen,
    before: Figures,
    exclude: tuple[str, ...],
) -> Report:
    """The report of a smaller network."""
    compared = [before, *([figures(control, task, parts.test)] if control else []), figures(smaller, task, parts.test)]
    not_measured = None
    try:
        models = [model, *([control] if control else []), smaller]
        for each, milliseconds in zip(compared, latency.milliseconds(models, example(parts.test))):
            each.latency = milliseconds
    except latency.NotMeasured as error:
        not_measured = str(error)
    after, missing, remarks = compared[-1], uncounted(model), list(chosen.warnings)
    notes = list(parts.notes) + ([f"no latency: {not_measured}"] if not_measured else [])
    lost = task.drop(before.score, after.score)
    if goal.kind == DROP and lost > goal.value:
        remarks.append(
            f"on the test data, {lost:.2f} are lost: {lost - goal.value:.2f} more than max_drop={goal.value:g}"
        )
    margin = _margin(model, smaller, task, parts.test)
    if goal.kind == DROP and margin and margin > max(goal.value, 0.1):
        remarks.append(
            f"a drop of {goal.value:g} points cannot be told from none on {parts.test.count} test examples: the 95 % "
            f"interval is ± {margin:.2f}"
        )
    chance = task.chance(parts.test)
    usable = chance is None or after.score > chance or before.score <= chance
    if not usable:
        remarks.append(f"the smaller network is at chance ({chance:.1f} %): too much was removed, ask for less")
    counts = {name: getattr(parts, name).count for name in ("train", "validation", "test")}
    return Report(
        task=f"{task.kind}, {task.source}", metric=task.metric, examples=counts,
        target={"asked": str(goal), "reached": _reached(goal, before, after, chosen, missing)},
        before=before, after=after, control=compared[1] if control else None, margin=margin,
        units=units(model, smaller, exclude), tradeoff=chosen.tradeoff, uncounted=missing, not_measured=not_measured,
        notes=notes, warnings=remarks, settings={}, usable=usable,
    )  # fmt: skip


def _reached(goal: Goal, before: Figures, after: Figures, chosen: Chosen, missing: list[str]) -> str:
    if goal.kind == LATENCY and after.latency:
        return f"{before.latency / after.latency:.2f}x" if goal.relative else f"{after.latency:.3g} ms"
    if goal.kind == DROP:
        return f"{chosen.drop:.2f} on the validation data"
    counted = f", {', '.join(missing)} not counted" if missing else ""
    return f"{before.macs / max(after.macs, 1):.2f}x{counted}" if goal.kind == MACS else "?"


def _margin(model: keras.Model, smaller: keras.Model, task: Task, test: Arrays | Stream) -> float | None:
    """Half of the 95 % interval of the difference of two accuracies on the same examples, in points."""
    if task.kind == REGRESSION:
        return None
    first, second = (task.evaluate(each, test).right for each in (model, smaller))
    return 100 * 1.96 * float(np.std(first - second)) / len(first) ** 0.5
