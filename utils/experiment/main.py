"""The main function of an experiment's script: from its flags to its row on stdout."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from keras_sbp.utils.experiment import flags
from keras_sbp.utils.experiment.evaluate import evaluate
from keras_sbp.utils.experiment.export import export
from keras_sbp.utils.experiment.run import Experiment, Network
from keras_sbp.utils.experiment.settings import Settings
from keras_sbp.utils.experiment.table import table
from keras_sbp.utils.io import command_line, report
from keras_sbp.utils.methods import Finetuning, Method


def main(
    train: Callable[[Experiment], report.Result],
    network: Network,
    name: str,
    method: type[Method],
    augment: type,
    finetuning: type[Finetuning] | None = None,
    **schedules: Mapping[str, Any],
) -> None:
    """Define a script's flags, parse them, run its experiment and print its row.

    A run that is finished is not trained again; its row is printed.

    Args:
        train: from the experiment to the result that `Experiment.finish` returns.
        network, name: as of `Experiment`.
        method, augment, finetuning: the dataclasses whose fields become flags.
        schedules: as of `flags.define`.
    """
    groups = [group for group in (Settings, method, augment, finetuning) if group]
    flags.define(*groups, **schedules)

    def run_script() -> None:
        if len(schedules) > 1:
            flags.set_defaults(schedules[flags.FLAGS.schedule])
        settings, *parts = (flags.read(group) for group in groups)
        options = dict(zip(("augment", "finetuning"), parts[1:]))
        run = Experiment(network, name, settings, parts[0], **options, script=flags.script(*groups))
        run_or_show(run, train)

    command_line.run(run_script)


def run_or_show(run: Experiment, train: Callable[[Experiment], report.Result]) -> None:
    """Do what a script's run is asked for, and print its row."""
    if run.settings.evaluate:
        print(evaluate(run))
        return
    if run.result():
        print(f"{run.directory} is finished: to train again, choose another --checkpoints_dir", file=sys.stderr)
    else:
        with run:
            if not train(run):
                return  # the chief prints the row
    if run.settings.export:
        export(run)
    print(table(run))
