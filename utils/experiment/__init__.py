"""Experiments: from the data to the row of the table."""

from keras_sbp.utils.experiment.main import main
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.experiment.settings import ROOT, Script, Settings
from keras_sbp.utils.experiment.start import find_or_train, live_units, load_weights

__all__ = ["ROOT", "Experiment", "Script", "Settings", "find_or_train", "live_units", "load_weights", "main"]
