"""TensorBoard's summaries of a run."""

import contextlib

import numpy as np
import tensorflow as tf

from keras_sbp.utils.io.command_line import UserError


class Summaries:
    """A folder of summaries; where it is None, nothing is written.

    Raises:
        UserError: they cannot be written, here and in `write`.
    """

    def __init__(self, folder):
        self.folder = folder
        with self._writing():
            self.writer = tf.summary.create_file_writer(folder) if folder else tf.summary.create_noop_writer()

    def write(self, epoch, figures, units, measured):
        """Bring an epoch's end to the disk, where a run that is killed has it.

        Args:
            epoch: 1 for the first.
            figures, measured: {name: float}.
            units: {layer's name: (units,) bool, which live}.
        """
        counts = {f"units/{name}": np.sum(living) for name, living in units.items()}
        with self._writing(), self.writer.as_default(epoch):
            for name, value in (figures | {"accuracy": 1 - figures["error"]} | counts | measured).items():
                tf.summary.scalar(name, value)

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except tf.errors.OpError as error:
            raise UserError(
                f"cannot write summaries in {self.folder} ({error}); give another --summaries_dir"
            ) from None
