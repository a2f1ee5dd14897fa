"""The task of a network: its loss, and which of its outputs are right."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sbp import keras_private
from keras_sbp.utils.tool import fingerprint
from keras_sbp.utils.tool.examples import Arrays, Stream, by_input
from keras_sbp.utils.tool.refusal import Refused

CLASSES, BINARY, LABELS, REGRESSION = "classes", "one label", "several labels", "regression"
CROSS_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")

# A score is better than chance if chance reaches it less often than this. As many labels are enough to say so.
AT_CHANCE, ENOUGH_LABELS = 0.05, 100_000


class Score(NamedTuple):
    """What an evaluation found.

    value: percent right, or the mean loss of a regression. right: (N,) the right fraction of each example's outputs;
    labels: (positions,) classes or (positions, outputs) bool, in the same order; both None for a regression. weights:
    (N,) how many positions of each example count: those that the outputs' mask leaves. None: as many of each.
    """

    value: float
    right: np.ndarray | None
    labels: np.ndarray | None
    weights: np.ndarray | None = None


class Task(NamedTuple):
    """How a network is trained and judged.

    kind: one of CLASSES, BINARY, LABELS, REGRESSION; one_hot: whether labels of classes are. logits: whether the
    outputs are. source: how all this is known. run_eagerly: as the network was compiled.
    """

    kind: str
    one_hot: bool
    logits: bool
    loss: Any
    source: str
    run_eagerly: bool = False

    @property
    def metric(self) -> str:
        return "Loss" if self.kind == REGRESSION else "Labels right, %" if self.kind == LABELS else "Accuracy, %"

    @property
    def loss_name(self) -> str:
        return _name(self.loss) or getattr(self.loss, "__name__", type(self.loss).__name__)

    @property
    def loss_settings(self) -> str:
        """The loss's name; the arguments of an object of Keras's, and a digest of what is not Keras's."""
        if not self.is_stock:
            return f"{self.loss_name} {fingerprint.of(self.loss)}"
        if not isinstance(self.loss, keras.losses.Loss):
            return self.loss_name
        settings = keras_private.loss_settings(self.loss)
        return f"{self.loss_name} {settings}"

    @property
    def is_stock(self) -> bool:
        """Whether the loss is one of Keras's own."""
        return bool(_name(self.loss))

    @property
    def ignored(self) -> int | None:
        """The class whose positions the loss leaves out (`ignore_class`), if any."""
        return getattr(self.loss, "ignore_class", None) if self.is_stock else None

    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        # An object of a loss may have a state: each model takes one of its own.
        is_object = isinstance(self.loss, keras.losses.Loss) and self.is_stock
        loss = keras_private.copied_loss(self.loss) if is_object else self.loss
        model.compile(optimizer, loss, run_eagerly=self.run_eagerly)

    def evaluate(self, model: keras.Model, part: Arrays | Stream) -> Score:
        """The score of a network on some examples.

        Positions that the mask of the outputs leaves out do not count, as in `model.evaluate`, nor does the class that
        the loss ignores. The loss is the mean over all other positions, as `model.evaluate` gives it for one batch.
        """
        found = []
        judge = self._loss_of if self.kind == REGRESSION else self._right
        for x, y in part.batches():
            # Not predict_on_batch: what XLA takes to compile it for each network is longer than all this takes.
            outputs = model(x, training=False)
            found.append(judge(_as_outputs(y, outputs), outputs, _mask(outputs, y)))
        values, weights, labels = zip(*found)
        if self.kind == REGRESSION:
            return Score(float(np.dot(values, weights) / max(1, np.sum(weights))), None, None)
        right, weights, labels = map(np.concatenate, (values, weights, labels))
        return Score(100 * float(np.dot(right, weights) / max(1, weights.sum())), right, labels, weights)

    def _loss_of(self, y: np.ndarray, outputs: Any, mask: np.ndarray) -> tuple[float, int, None]:
        """The mean loss of a batch, and its weight."""
        loss = keras.losses.get(self.loss)
        loss = loss if isinstance(loss, keras.losses.Loss) else _MeanOf(loss)
        return float(keras.ops.mean(loss(y, outputs))), int(mask.sum()), None

    def _right(self, y: np.ndarray, outputs: Any, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The right fraction of each example of a batch, its weight, and the labels that count."""
        outputs = _with_units(keras.ops.convert_to_numpy(outputs))
        if self.kind == CLASSES:
            labels = y.argmax(-1) if self.one_hot else y.reshape(outputs.shape[:-1])
            right = outputs.argmax(-1) == labels
        else:
            labels = y.reshape(outputs.shape) > 0.5
            right = ((outputs > (0 if self.logits else 0.5)) == labels).mean(-1)
        counted = np.broadcast_to(mask.reshape(mask.shape + (1,) * (right.ndim - mask.ndim)), right.shape)
        if self.ignored is not None:
            counted = counted & (labels != self.ignored)
        weights = counted.reshape(len(y), -1).sum(1)
        right = (right * counted).reshape(len(y), -1).sum(1) / np.maximum(weights, 1)
        return right, weights, labels[counted]

    def drop(self, before: float, after: float) -> float:
        """How much worse a score is: in points; of a regression's loss, which may be negative, in percent."""
        if self.kind != REGRESSION:
            return before - after
        if not before:
            return 0.0 if after <= 0 else math.inf
        return 100 * (after - before) / abs(before)

    def chance(self, score: Score) -> float | None:
        """Percent right if the most frequent answer is always given; None for a regression."""
        if score.labels is None:
            return None
        if self.kind == CLASSES:
            return 100 * float(np.bincount(score.labels.astype(int), minlength=1).max() / max(1, len(score.labels)))
        positive = score.labels.mean(0)
        return 100 * float(np.maximum(positive, 1 - positive).mean())

    def is_at_chance(self, score: Score) -> bool:
        """Whether a score cannot be told from that of always giving the same answer."""
        chance = self.chance(score)
        if chance is None:
            return False
        count = min(len(score.labels), ENOUGH_LABELS)
        return _at_least(round(score.value / 100 * count), count, chance / 100) > AT_CHANCE


def _at_least(right: int, count: int, chance: float) -> float:
    """The probability that as many of some examples are right by chance, or more."""
    if not right or chance == 1:
        return 1.0
    numbers = np.arange(count + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((count + 1 - numbers[1:]) / numbers[1:]))])
    return float(np.exp(ways + numbers * math.log(chance) + (count - numbers) * math.log1p(-chance))[right:].sum())


class _MeanOf(keras.losses.Loss):
    """The mean of what a function gives, without the positions that the outputs' mask leaves out."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__()
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _mask(outputs: Any, y: np.ndarray) -> np.ndarray:
    """Which positions of the outputs count, (N, ...): those of their mask; all, (N,), if they come without one."""
    mask = keras_private.mask_of(outputs)
    return np.ones(len(y), bool) if mask is None else keras.ops.convert_to_numpy(mask).astype(bool)


def of(model: keras.Model, data: Arrays | Stream, loss: Any = None) -> Task:
    """The task of a network: as the loss says, else as the outputs and the labels look.

    Args:
        loss: in place of what the model was compiled with.
    Raises:
        Refused: outputs and labels do not go together.
    """
    source = "as told" if loss is not None else "as compiled"
    loss = loss if loss is not None else _compiled_loss(model)
    x, y = next(iter(data.batches()))
    try:
        outputs = keras.ops.convert_to_numpy(model(x, training=False))
    except Exception as error:  # whatever Keras raises where they do not fit
        sides = model.inputs, by_input(model, x)
        wanted, given = (", ".join(str(tuple(each.shape)[1:]) for each in tensors) for tensors in sides)
        why = "bring x to that shape" if wanted != given else f"{type(error).__name__}: {_brief(error)}"
        raise Refused(f"{model.name} reads examples of {wanted}, and x has {given}: {why}") from None
    name = _name(loss)
    if isinstance(loss, keras.losses.Loss) and loss.reduction in (None, "none"):
        # One of anybody's own may take the mean by itself.
        if len(loss(_as_outputs(y, outputs), outputs).shape):
            raise Refused(f"{name or loss.name} has reduction={loss.reduction!r}: give loss=, one with a mean")
    kind, one_hot = _kind(name, y, _with_units(outputs))
    logits = getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits"))
    if logits is None:
        # A name says of Keras's losses that the outputs are probabilities, but not of anybody's own.
        logits = name.endswith("hinge") or (not isinstance(loss, str) and not _are_probabilities(kind, outputs))
    if (
        source == "as told"
        and isinstance(loss, str)
        and name in CROSS_ENTROPIES
        and not _are_probabilities(kind, outputs)
    ):
        loss, logits = _loss(kind, one_hot, True), True  # the shell has no other word for it
    if loss is None:
        loss, source = _loss(kind, one_hot, logits), "guessed from outputs and labels"
    return Task(kind, one_hot, bool(logits), loss, source, bool(model.run_eagerly))


def _with_units(outputs: np.ndarray) -> np.ndarray:
    """Outputs whose last axis is units, also if they are one number for each example: (N, ..., units)."""
    return outputs[:, None] if outputs.ndim == 1 else outputs


def _kind(name: str, y: np.ndarray, outputs: np.ndarray) -> tuple[str, bool]:
    """The kind of the task, and whether the labels are one-hot."""
    width, same = outputs.shape[-1], y.shape == outputs.shape
    if "categorical" in name:
        return CLASSES, "sparse" not in name and "generalized" not in name
    if "binary" in name or name.endswith("hinge"):
        return (BINARY if width == 1 else LABELS), False
    if name in REGRESSIONS:
        return REGRESSION, False
    whole = y.dtype.kind in "iub" or (y == np.rint(y)).all()
    zero_or_one = whole and ((y == 0) | (y == 1)).all()
    if same and width > 1 and zero_or_one:
        return (CLASSES, True) if (y.sum(-1) == 1).all() else (LABELS, False)
    if width > 1 and whole and y.size * width == outputs.size and y.min() >= 0:
        return CLASSES, False
    return (BINARY if width == 1 and zero_or_one else REGRESSION), False


REGRESSIONS = {
    *("mean_squared_error", "mse", "mean_absolute_error", "mae", "mean_absolute_percentage_error", "mape"),
    *("mean_squared_logarithmic_error", "msle", "huber", "log_cosh", "poisson", "cosine_similarity"),
}


def _are_probabilities(kind: str, outputs: np.ndarray) -> bool:
    if outputs.min() < 0 or outputs.max() > 1.01 or not outputs.any():
        return False
    return kind != CLASSES or np.allclose(outputs.sum(-1), 1, atol=0.01)


def _loss(kind: str, one_hot: bool, logits: bool) -> keras.losses.Loss:
    if kind == CLASSES:
        make = keras.losses.CategoricalCrossentropy if one_hot else keras.losses.SparseCategoricalCrossentropy
        return make(from_logits=logits)
    return keras.losses.MeanSquaredError() if kind == REGRESSION else keras.losses.BinaryCrossentropy(logits)


def _compiled_loss(model: keras.Model) -> Any:
    if not model.compiled:
        return None
    loss = model.loss
    if isinstance(loss, (list, tuple, dict)):
        found = keras.tree.flatten(loss)
        loss = found[0] if len(found) == 1 else None
    return loss


def _name(loss: Any) -> str:
    """The name of a loss in small letters: that of Keras's functions, for its classes too."""
    if isinstance(loss, str):
        try:
            found = keras.losses.get(loss)
        except ValueError:
            raise Refused(f"keras.losses has no {loss}: give another loss, or a function of (y, outputs)") from None
        return _name(found)
    if isinstance(loss, keras.losses.Loss):
        return _snake(type(loss).__name__) if _is_stock(loss) else ""
    return getattr(loss, "__name__", "") if _is_stock(loss) else ""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).strip("_")


def _is_stock(loss: Any) -> bool:
    return (getattr(loss, "__module__", None) or "").startswith("keras.")


def _as_outputs(y: np.ndarray, outputs: Any) -> np.ndarray:
    return y.reshape(outputs.shape) if y.size == math.prod(outputs.shape) else y


def _brief(error: Exception) -> str:
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints some of it in bold
    return " ".join(text.split())[:120]
