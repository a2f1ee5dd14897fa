"""An experiment from its flags to its row."""

from keras_sbp.utils.experiment.flags import ROOT, define_finetune_flags, define_flags, run_folder
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.experiment.start import pretrained, set_weights, units_in
from keras_sbp.utils.experiment.testing import error

__all__ = [
    "ROOT",
    "Experiment",
    "define_finetune_flags",
    "define_flags",
    "error",
    "pretrained",
    "run_folder",
    "set_weights",
    "units_in",
]
