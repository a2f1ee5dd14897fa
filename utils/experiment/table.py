"""A run's rows of the table, and the directories of the runs beside it."""

from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.io import report


def table(run: Experiment) -> str:
    """The Original's row and this run's, each below the published one and the paper's."""
    script, found = run.script, {}
    directories = {script.name: run.directory}
    if original := script.original:
        directories = {original: original_directory(run, original), **directories}
    label = "ours, held out" if run.settings.validate else "ours"
    for name, own in directories.items():
        for source, directory in (("published", script.published_directory(name)), (label, own)):
            if result := report.read(directory):
                found.setdefault(result["method"], {})[source] = [result]
    return report.text(run.title, run.settings.dataset, report.rows(run.title, run.settings.dataset, found))


def original_directory(run: Experiment, name: str) -> str:
    """The directory of the run of another script that a run trains for itself: beside it, if it was told its own."""
    return f"{run.directory}-{name}" if run.settings.checkpoints_dir else run.script.directory(name)
