"""A training that can be killed: `fit` goes on from the last epoch that is whole, to the same bits."""

import os
import warnings
from typing import Any

import keras
import numpy as np

from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.tool.refusal import Refused


class Checkpoint(keras.callbacks.Callback):
    """Saves a training at the end of every epoch, and continues it when the same program is started again.

        model.fit(x, y, epochs=20, callbacks=[sbp.Checkpoint("run")])

    Saved are the weights, the optimizer, the seeds of the model's random layers, and the epoch: one .npz file, written
    aside, synced and renamed; the last two are kept. A damaged one is skipped. Weights that are not finite are not
    saved.

    To end in the same bits as without the kill, each epoch must see the same examples in the same order:

    - arrays do, if `keras.utils.set_random_seed` is called before `fit` (Keras then has one order for all epochs);
    - a tf.data.Dataset does, if it yields the same every epoch (`shuffle(..., reshuffle_each_iteration=False)`);
    - a PyDataset does, if it has a method `set_epoch(epoch)` from which its order and all else that is random in it
      follow. Give it as `data`, too: the method is called before each epoch. The generators of `random` and
      `numpy.random` are no help there, as Keras reads ahead in a thread of its own.

    The state of other callbacks is not saved, nor, on PyTorch, that of its own generator, from which Dropout draws.

    Args:
        directory: for this training alone; made if need be.
        data: what `fit` is given, if it has a method `set_epoch`.
    Raises:
        UserError, when `fit` is called: another process trains in the directory, it holds another network's training,
            no checkpoint in it is whole, or it cannot be written, because the disk is full, say; or the model has no
            weights yet.
    """

    # {directory: what holds it} of this process: after Ctrl-C in a notebook, fit may be called again.
    _held = {}

    def __init__(self, directory: str | os.PathLike, data: Any = None):
        super().__init__()
        self.directory, self.data = os.path.realpath(directory), data

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not self.model.built:
            raise Refused(
                f"{self.model.name} has no weights yet: give its first layer an Input, or call it on data once"
            )
        if earlier := self._held.pop(self.directory, None):
            earlier.close()
        self._held[self.directory] = checkpoint.lock_directory(self.directory)
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        found = checkpoint.latest(self.directory)
        if found is None:
            return
        variables = self._variables()
        if {name: array.shape for name, array in found.items() if name != "epoch"} != {
            name: tuple(variable.shape) for name, variable in variables.items()
        }:
            raise Refused(f"{self.directory} holds the training of another network: choose another directory")
        for name, variable in variables.items():
            variable.assign(_from_file(found[name], variable.dtype))
        # As keras.callbacks.BackupAndRestore does it.
        self.model._initial_epoch = int(found["epoch"])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # `fit` has read it. Left there, it would be the first epoch of any later `fit` if this one is interrupted.
        self.model._initial_epoch = 0
        if self.data is not None:
            self.data.set_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        arrays = {name: np.asarray(variable) for name, variable in self._variables().items()}
        if not all(np.isfinite(array.astype(np.float32)).all() for array in arrays.values() if _is_float(array)):
            warnings.warn(
                f"the weights after epoch {epoch + 1} are not finite and not saved: lower the learning rate",
                stacklevel=2,
            )
            return
        arrays = {name: _to_file(array) for name, array in arrays.items()}
        checkpoint.save(self.directory, epoch + 1, {**arrays, "epoch": np.int64(epoch + 1)})

    def on_train_end(self, logs: dict | None = None) -> None:
        self.model._initial_epoch = 0
        self._held.pop(self.directory).close()

    def _variables(self) -> dict[str, keras.Variable]:
        """By their numbers: the names that Keras gives to layers depend on what was made before."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        of_model = [variable for variable in self.model.variables if id(variable) not in metrics]
        named = {f"model_{number}": variable for number, variable in enumerate(of_model)}
        return named | {f"optimizer_{n}": variable for n, variable in enumerate(self.model.optimizer.variables)}


def _is_float(array: np.ndarray) -> bool:
    # NumPy has no kind for bfloat16.
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _to_file(array: np.ndarray) -> np.ndarray:
    # NumPy's format does not know bfloat16.
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _from_file(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array
