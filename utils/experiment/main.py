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
from keras_sbp.utils.methods import Finetuning, Method, PruningMethod


def main(
    train: Callable[[Experiment], report.Result],
    network: Network,
    name: str,
    method: type[Method],
    augment: type,
    finetuning: type[Finetuning] | None = None,
    default_schedule: str = "short",
    **schedules: Mapping[str, Any],
) -> None:
    """Define a script's flags, parse them, run its experiment and print its row.

    A run that is finished is not trained again; its row is printed.

    Args:
        train: from the experiment to the result that `Experiment.finish` returns.
        network, name: see `Experiment`.
        method, augment, finetuning: the dataclasses whose fields become flags.
        default_schedule: the schedule of a run without --schedule.
        schedules: {name: {flag's name: its default}}.
    """
    groups = [group for group in (Settings, method, augment, finetuning) if group]
    flags.define(
        *groups, defaults={"schedule": default_schedule} | schedules[default_schedule], schedules=list(schedules)
    )

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
            result = train(run)
        if not result:
            return  # the chief prints the row
        if isinstance(run.method, PruningMethod) and result["flops_speedup"] == 1:
            print("no unit was removed: train longer, or raise --noise_learning_rate or --strength", file=sys.stderr)
    if run.settings.export:
        export(run)
    print(table(run))
