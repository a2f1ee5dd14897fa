"""The second stage of a method: training the smaller network, without noise or lasso."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

from keras_sbp.lazy import keras
from keras_sbp.utils import training
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.options import option
from keras_sbp.utils.methods.method import Method


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuning(Method):
    """Fine-tuning by Adam, in float32."""

    FLAG_PREFIX: ClassVar[str] = "finetune_"
    inserts_batch_norm: ClassVar[bool] = False
    epochs: int = option(
        0, "Epochs of fine-tuning the smaller network; the row shows the error before and after.", at_least=0
    )
    teacher: str | None = option(
        None, "Directory of a run, or a .keras file, whose network's outputs are targets beside the labels."
    )
    soft_labels: float = option(
        0.9, "With a teacher: weight of its outputs; that of the labels is the rest of 1.", at_least=0, at_most=1
    )
    temperature: float = option(
        4.0, "With a teacher: divides the logits of both networks before they are compared.", at_least=0.01
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher and not self.epochs:
            raise UserError("finetune_teacher does nothing without finetune_epochs: give both")
        rates = [value for name, value in vars(self).items() if name.endswith("learning_rate")]
        if self.epochs and not any(rates):
            raise UserError("finetune_learning_rate=0 trains nothing: use a larger value")

    def objective(self, model: keras.Model) -> training.Objective:
        return dataclasses.replace(super().objective(model), soft_labels=self.soft_labels, temperature=self.temperature)

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        return training.Updates(lambda variable: self.learning_rate, self.warmup, self.decay_start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retraining(Finetuning):
    """Fine-tuning by SGD with Nesterov momentum, the kernels of convolutions by Muon if they have a rate of their own.

    Batch normalization is inserted again, and the run's precision is kept.
    """

    inserts_batch_norm: ClassVar[bool] = True
    kernel_learning_rate: float = option(
        0.0, "Muon's learning rate, for the kernels of convolutions; 0: they are trained as the rest.", at_least=0
    )

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        rate = self.learning_rate / num_examples
        if not self.kernel_learning_rate:
            return training.Updates(lambda variable: rate, self.warmup, self.decay_start, training.updates.nesterov)
        return training.Updates(
            lambda variable: self.kernel_learning_rate if len(variable.shape) == 4 else rate,
            self.warmup,
            self.decay_start,
            functools.partial(training.updates.muon, compute_dtype=model.compute_dtype),
        )
