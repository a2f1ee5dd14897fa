"""The second stage of a method: training the smaller network, without noise or lasso."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras_sbp.lazy import keras
from keras_sbp.utils import training
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

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        return training.Updates(lambda variable: self.learning_rate, self.warmup, self.decay_start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retraining(Finetuning):
    """Fine-tuning by SGD with Nesterov momentum, with batch normalization inserted again, in the run's precision."""

    inserts_batch_norm: ClassVar[bool] = True

    def updates(self, model: keras.Model, num_examples: int) -> training.Updates:
        rate = self.learning_rate / num_examples
        return training.Updates(lambda variable: rate, self.warmup, self.decay_start, training.updates.nesterov)
