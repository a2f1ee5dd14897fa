"""Experiments: from the data to the row of the table."""

from typing import TYPE_CHECKING

from keras_sbp import lazy
from keras_sbp.utils.experiment.main import main
from keras_sbp.utils.experiment.settings import ROOT, Script, Settings

if TYPE_CHECKING:
    from keras_sbp.utils.experiment.run import Experiment
    from keras_sbp.utils.experiment.start import (
        build_from,
        find_or_train,
        insert_noise,
        live_units,
        load_smaller,
        load_weights,
        train_original,
    )

__all__ = [
    "ROOT",
    "Experiment",
    "Script",
    "Settings",
    "build_from",
    "find_or_train",
    "insert_noise",
    "live_units",
    "load_smaller",
    "load_weights",
    "main",
    "train_original",
]

# What is not imported above is of `start`.
_MODULES = {name: "start" for name in __all__ if name not in globals()} | {"Experiment": "run"}
__getattr__ = lazy.attach(__name__, _MODULES)
