"""Warnings about a model and its data before training, a line each."""

import keras
import numpy as np

from keras_sbp.utils.pruning import graph
from keras_sbp.utils.tool.choice import DROP, Goal
from keras_sbp.utils.tool.examples import Arrays, Parts, Stream, by_input
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.tasks import CLASSES, Score, Task


def of_data(model: keras.Model, parts: Parts) -> list[str]:
    """Inputs whose range does not fit the layers that rescale them."""
    x, _ = next(iter(parts.train.batches()))
    found = []
    opened = graph.flatten_nested(model)
    for tensor, array in zip(opened.inputs, by_input(opened, x)):
        for node in graph.nodes(opened):
            if not any(read is tensor for read in node.input_tensors) or array.dtype.kind not in "fiu":
                continue
            layer = node.operation
            if isinstance(layer, keras.layers.Rescaling):
                found += _rescaled(layer, array)
            elif isinstance(layer, keras.layers.Normalization):
                found += _normalized(layer, array)
    return found


def _rescaled(layer: keras.layers.Rescaling, x: np.ndarray) -> list[str]:
    scale, offset = np.max(np.abs(layer.scale)), np.asarray(layer.offset)
    low, high = float(x.min()), float(x.max())
    spread = scale * (high - low)
    if spread < 0.05 or spread > 20:
        ends = [float(np.mean(layer.scale * end + offset)) for end in (low, high)]
        return [
            f"x goes from {low:g} to {high:g}, and {layer.name} makes {ends[0]:.3g} to {ends[1]:.3g} of it: are these "
            "the examples that the network was trained on?"
        ]
    return []


def _normalized(layer: keras.layers.Normalization, x: np.ndarray) -> list[str]:
    values = keras.ops.convert_to_numpy(layer(x.astype(np.float32)))
    if abs(values.mean()) > 5 or not 0.05 < values.std() < 20:
        return [
            f"{layer.name} gives x a mean of {values.mean():.3g} and a standard deviation of {values.std():.3g}, not "
            "0 and 1: are these the examples that the network was adapted to?"
        ]
    return []


def of_classes(task: Task, parts: Parts, goal: Goal) -> list[str]:
    """Too few examples to measure a drop with.

    Raises:
        Refused: the test data have no example of a class that is trained.
    """
    found = []
    if task.kind == CLASSES:
        # To read all of a stream of training data for its labels would take too long.
        trained = parts.validation if isinstance(parts.train, Stream) else parts.train
        if len(_classes(task, trained)) == 1:
            found.append("all labels are the same: the network will learn nothing from them")
        missing = sorted(_classes(task, trained) - _classes(task, parts.test))
        if missing:
            raise Refused(
                f"the test data have no example of class {', '.join(map(str, missing[:5]))}"
                f"{', ...' * (len(missing) > 5)}: shuffle before splitting, or give all of it as data"
            )
    count = parts.validation.count
    if goal.kind == DROP and any(note.startswith("validation: ") for note in parts.notes):
        found.append(
            "the validation data were taken from data: if the network was trained on them, it will seem to lose more "
            "than it does; give validation_data that it has not seen"
        )
    if goal.kind == DROP and task.metric.endswith("%") and 100 / count > max(goal.value, 1e-9):
        found.append(
            f"max_drop={goal.value:g} points is less than one of {count} validation examples: no drop at all is allowed"
        )
    return found


def _classes(task: Task, part: Arrays | Stream) -> set[int]:
    y = part.labels()
    return set(np.unique(y.argmax(-1) if task.one_hot else y).astype(int).tolist()) - {task.ignored}


def of_score(task: Task, score: Score) -> list[str]:
    """A network at chance."""
    if not task.is_at_chance(score):
        return []
    return [
        f"the network as given cannot be told from chance on {len(score.right)} test examples ({score.value:.1f} %, "
        f"and {task.chance(score):.1f} % by always giving the same answer): train it first, or give examples as it was "
        "trained on, or more of them"
    ]
