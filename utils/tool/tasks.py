"""The task of a network: its loss, and which of its outputs are right."""

import math
import re
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sbp.utils.tool import fingerprint
from keras_sbp.utils.tool.examples import Arrays, Stream, by_input
from keras_sbp.utils.tool.refusal import Refused

CLASSES, BINARY, LABELS, REGRESSION = "classes", "one label", "several labels", "regression"
CROSS_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class Score(NamedTuple):
    """What an evaluation found.

    value: percent right, or the mean loss of a regression. right: (N,) the right fraction of each example's outputs;
    None for a regression. labels: (N, ...), in the same order.
    """

    value: float
    right: np.ndarray | None
    labels: np.ndarray


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
        settings = {name: value for name, value in self.loss.get_config().items() if name != "name"}
        return f"{self.loss_name} {settings}"

    @property
    def is_stock(self) -> bool:
        """Whether the loss is one of Keras's own."""
        return bool(_name(self.loss))

    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        # An object of a loss may have a state: each model takes one of its own.
        loss = self.loss
        if isinstance(loss, keras.losses.Loss) and _is_stock(loss):
            loss = type(loss).from_config(loss.get_config())
        model.compile(optimizer, loss, run_eagerly=self.run_eagerly)

    def evaluate(self, model: keras.Model, part: Arrays | Stream) -> Score:
        """The score of a network on some examples."""
        right, labels, loss, count = [], [], 0.0, 0
        function = keras.losses.get(self.loss)
        for x, y in part.batches():
            # Not predict_on_batch: what XLA takes to compile it for each network is longer than all this takes.
            outputs = keras.ops.convert_to_numpy(model(x, training=False))
            if self.kind == REGRESSION:
                loss += len(y) * float(keras.ops.mean(function(_as_outputs(y, outputs), outputs)))
            else:
                right.append(self._right(y, outputs))
            labels.append(y)
            count += len(y)
        labels = np.concatenate(labels)
        if self.kind == REGRESSION:
            return Score(loss / count, None, labels)
        right = np.concatenate(right)
        return Score(100 * float(right.mean()), right, labels)

    def _right(self, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        if self.kind == CLASSES:
            found, wanted = outputs.argmax(-1), y.argmax(-1) if self.one_hot else y.reshape(outputs.shape[:-1])
        else:
            found, wanted = outputs > (0 if self.logits else 0.5), _as_outputs(y, outputs) > 0.5
        return (found == wanted).reshape(len(y), -1).mean(1)

    def drop(self, before: float, after: float) -> float:
        """How much worse a score is: in points; of a regression's loss, which may be negative, in percent."""
        if self.kind != REGRESSION:
            return before - after
        if not before:
            return 0.0 if after <= 0 else math.inf
        return 100 * (after - before) / abs(before)

    def chance(self, part: Arrays | Stream) -> float | None:
        """Percent right if the most frequent answer is always given; None for a regression."""
        if self.kind == REGRESSION:
            return None
        y = part.labels()
        if self.kind == CLASSES:
            classes = (y.argmax(-1) if self.one_hot else y).ravel().astype(int)
            return 100 * float(np.bincount(classes).max() / len(classes))
        positive = (y > 0.5).mean(0)
        return 100 * float(np.maximum(positive, 1 - positive).mean())

    def is_at_chance(self, score: float, part: Arrays | Stream) -> bool:
        """Whether a score on these examples cannot be told from that of always giving the same answer."""
        chance = self.chance(part)
        if chance is None:
            return False
        deviation = 100 * (chance / 100 * (1 - chance / 100) / part.count) ** 0.5
        return score <= chance + 2 * deviation


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
    kind, one_hot = _kind(name, y, outputs)
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


def _as_outputs(y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return y.reshape(outputs.shape) if y.size == outputs.size else y


def _brief(error: Exception) -> str:
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints some of it in bold
    return " ".join(text.split())[:120]
