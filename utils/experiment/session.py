"""What a script does once its flags are read: train, evaluate or export, and print the row."""

import os
import sys
from collections.abc import Callable

from keras_sbp.utils.experiment.evaluate import evaluate
from keras_sbp.utils.experiment.export import export
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.experiment.table import table
from keras_sbp.utils.io import report
from keras_sbp.utils.methods import PruningMethod


def run_or_show(run: Experiment, train: Callable[[Experiment], report.Result]) -> None:
    """Do what a script's run is asked for, print its row, and say where the network is."""
    if run.settings.num_gpus == 0:
        run.strategy  # noqa: B018  hides the GPUs, before TensorFlow uses them
    if run.settings.evaluate:
        print(evaluate(run))
        return
    if run.result():
        print(f"{run.directory} is finished: to train again, choose another --checkpoints_dir", file=sys.stderr)
    else:
        with run:
            result = train(run)
        if not result:
            return  # the chief prints the row
        if isinstance(run.method, PruningMethod) and result["flops_speedup"] == 1:
            print("no unit was removed: train longer, or raise the noise's rate, KL scale or lasso", file=sys.stderr)
    if run.settings.export:
        export(run)
    print(table(run), flush=True)
    path = os.path.join(run.directory, "network.keras").removeprefix(f"{os.getcwd()}/")
    print(f"{path}: keras.models.load_model opens it, scripts/predict.py classifies images with it", file=sys.stderr)
