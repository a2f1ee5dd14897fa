"""Epochs, batch size and learning rates: as asked for, else by default."""

import math
import numbers
import operator
from typing import Any, NamedTuple

from keras_sbp.utils.tool.examples import Parts, Stream
from keras_sbp.utils.tool.refusal import Refused

# Steps with noise that are enough to tell units apart, and the noise's learning rate for that many.
ENOUGH_STEPS, NOISE_LEARNING_RATE = 1500, 0.02
# The noise's learning rate if there are fewer steps: it is raised in proportion, up to this.
MOST_NOISE_LEARNING_RATE = 0.2
FEWEST_EPOCHS, BATCH_SIZE, SMALLEST_BATCH = 20, 64, 8
# Fine-tuning takes this fraction of the epochs with noise.
FINETUNING = 1 / 6


class Plan(NamedTuple):
    """steps: per epoch."""

    batch_size: int
    steps: int
    epochs: int
    finetune_epochs: int
    learning_rate: float
    noise_learning_rate: float
    warnings: tuple[str, ...]


def of(
    parts: Parts,
    epochs: int | None,
    finetune_epochs: int | None,
    batch_size: int | None,
    learning_rate: float,
    noise_learning_rate: float | None,
) -> Plan:
    """The plan for some data; None stands for the default.

    Raises:
        Refused: a number makes no sense, or there are fewer examples than in a batch.
    """
    epochs, finetune_epochs = (
        None if value is None else whole_number(value, name, least)
        for value, name, least in ((epochs, "epochs", 1), (finetune_epochs, "finetune_epochs", 0))
    )
    for value, name in ((learning_rate, "learning_rate"), (noise_learning_rate, "noise_learning_rate")):
        if value is not None and not (isinstance(value, numbers.Real) and 0 <= value < math.inf):
            raise Refused(f"{name}={value}: give a number from 0")
    count = parts.train.count
    if isinstance(parts.train, Stream):
        batch_size = parts.train.batch_size
    elif batch_size is None:
        batch_size = max(1, min(BATCH_SIZE, max(SMALLEST_BATCH, count // 16), count))
    if batch_size > count:
        raise Refused(f"batch_size={batch_size} is more than the {count} training examples: use a smaller value")
    steps = count // batch_size
    epochs = epochs or max(FEWEST_EPOCHS, math.ceil(ENOUGH_STEPS / steps))
    finetune_epochs = math.ceil(FINETUNING * epochs) if finetune_epochs is None else finetune_epochs
    warnings, raised = [], NOISE_LEARNING_RATE
    if epochs * steps < ENOUGH_STEPS:
        raised = min(NOISE_LEARNING_RATE * ENOUGH_STEPS / (epochs * steps), MOST_NOISE_LEARNING_RATE)
        enough = math.ceil(ENOUGH_STEPS / steps)
        what = f"; the noise's learning rate is raised to {raised:.3g}" if noise_learning_rate is None else ""
        warnings.append(f"{epochs * steps} steps are too few to tell units apart well: epochs={enough} would do{what}")
    rate = raised if noise_learning_rate is None else noise_learning_rate
    return Plan(batch_size, steps, epochs, finetune_epochs, learning_rate, rate, tuple(warnings))


def whole_number(value: Any, name: str, least: int) -> int:
    """An argument as an int.

    Raises:
        Refused: it is not a whole number, or less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number < 2**32:
        raise Refused(f"{name}={value}: give a whole number from {least}")
    return number
