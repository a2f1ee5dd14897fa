"""TensorBoard summaries of a run."""

import contextlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError


class Summaries:
    """Writes summaries into a directory, or nothing if that is None.

    Raises:
        UserError: they cannot be written, here and in `write`.
    """

    def __init__(self, directory: str | None):
        self.directory = directory
        with self._errors():
            self.writer = tf.summary.create_file_writer(directory) if directory else tf.summary.create_noop_writer()

    def write(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        live_units: Mapping[str, np.ndarray],
        measured: Mapping[str, float],
    ) -> None:
        """Write the summary of an epoch and flush it to disk, so that it outlives a killed run.

        Args:
            epoch: counts from 1.
            metrics: of the step, including "error".
            live_units: {layer's name: (units,) bool}; their numbers are written.
            measured: further metrics.
        """
        counts = {f"units/{name}": np.sum(live) for name, live in live_units.items()}
        with self._errors(), self.writer.as_default(epoch):
            for name, value in (dict(metrics) | {"accuracy": 1 - metrics["error"]} | counts | dict(measured)).items():
                tf.summary.scalar(name, value)

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except tf.errors.OpError as error:
            raise UserError(
                f"cannot write summaries in {self.directory} ({error}): choose another --summaries_dir"
            ) from None
