"""Labels: in the form that the loss takes, or refused before anything is trained."""

import numpy as np

from keras_sbp.utils.tool.examples import Arrays, Stream
from keras_sbp.utils.tool.refusal import Refused
from keras_sbp.utils.tool.tasks import BINARY, CLASSES, LABELS, Task


def fitted(task: Task, part: Arrays | Stream, outputs: tuple[int | None, ...]) -> Arrays | Stream:
    """The same examples, with class numbers or one-hot labels, as the loss takes them.

    Of a stream to train on, the labels of the first batch are checked. Those of a stream are not converted.

    Args:
        outputs: shape of the model's outputs for one example.
    Raises:
        Refused: the labels have another shape than the outputs, or values that the model has no output for.
    """
    y = part.y if isinstance(part, Arrays) else part.labels() if part.is_counted else next(iter(part.batches()))[1]
    if task.kind == CLASSES:
        return _classes(task, part, y, outputs)
    if task.kind in (BINARY, LABELS):
        low = -1 if task.loss_name.endswith("hinge") else 0
        if y.min() < low or y.max() > 1:
            raise Refused(f"the outputs are of labels from {low} to 1, and y goes from {y.min():g} to {y.max():g}")
    if task.is_stock and not _is_of(y.shape[1:], outputs):
        raise Refused(f"the model has outputs of {outputs}, and y has labels of {y.shape[1:]}: give one per output")
    return part


def _classes(task: Task, part: Arrays | Stream, y: np.ndarray, outputs: tuple[int | None, ...]) -> Arrays | Stream:
    classes = outputs[-1]
    is_one_hot = y.ndim == 1 + len(outputs) and y.shape[-1] == classes > 1
    if not is_one_hot and not _is_of(y.shape[1:], outputs[:-1]):
        raise Refused(f"the model has outputs of {outputs}, and y has labels of {y.shape[1:]}: give a class per output")
    known = y if task.ignored is None or is_one_hot else y[y != task.ignored]
    if not known.size and (isinstance(part, Arrays) or part.is_counted):
        raise Refused(f"all labels are the class that the loss ignores, {task.ignored}: give others, too")
    if not is_one_hot and known.size and (known.min() < 0 or known.max() >= classes or (known != np.rint(known)).any()):
        raise Refused(
            f"the network knows classes 0 to {classes - 1}, and the labels go from {known.min():g} to {known.max():g}: "
            "give it an output for each class, and whole numbers from 0"
            + ("" if task.is_stock else f"; for a regression, labels of the outputs' shape, {outputs}")
        )
    if is_one_hot == task.one_hot:
        return part
    if isinstance(part, Stream):
        wanted, given = ("one-hot labels", "class numbers")[:: 1 if task.one_hot else -1]
        raise Refused(f"the loss {task.loss_name} takes {wanted}, and the stream yields {given}: map them")
    return part._replace(y=y.argmax(-1) if is_one_hot else _one_hot(y.reshape(len(y), *outputs[:-1]), classes))


def _one_hot(y: np.ndarray, classes: int) -> np.ndarray:
    return (y[..., None] == np.arange(classes)).astype(np.float32)


def _is_of(shape: tuple[int, ...], outputs: tuple[int | None, ...]) -> bool:
    """Whether labels have a shape, but for axes of length 1; None is any length."""
    first, second = ([length for length in axes if length != 1] for axes in (shape, outputs))
    return len(first) == len(second) and all(two in (one, None) for one, two in zip(first, second))
