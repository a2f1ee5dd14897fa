"""The main function of an experiment's script: from its flags to its row on stdout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from keras_sbp.nets import Network
from keras_sbp.utils.experiment import flags
from keras_sbp.utils.experiment.settings import Settings
from keras_sbp.utils.io import command_line, terminal
from keras_sbp.utils.methods import Finetuning, Method

if TYPE_CHECKING:
    from keras_sbp.utils.experiment.run import Experiment
    from keras_sbp.utils.io import report


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

    A run that is finished is not trained again; its row is printed. What TensorFlow writes goes to log.txt in the run's
    directory.

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
        flags.use_schedule(schedules)
        settings, *parts = (flags.read(group) for group in groups)
        options = dict(zip(("augment", "finetuning"), parts[1:]))
        script = flags.script(*groups)
        # TensorFlow leaves it off on processors without AVX-512. LeNet5 trains 1.8 times as fast with it there.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        with terminal.quiet(log_file(settings.checkpoints_dir or script.directory(), settings)):
            from keras_sbp.utils.experiment import session  # imports TensorFlow
            from keras_sbp.utils.experiment.run import Experiment

            session.run_or_show(Experiment(network, name, settings, parts[0], **options, script=script), train)

    command_line.run(run_script)


def log_file(directory: str, settings: Settings) -> str | None:
    """log.txt in the run's directory, which is made; None where nothing is to be or can be written there.

    Raises:
        UserError: the directory cannot be made.
    """
    if settings.evaluate or "TF_CONFIG" in os.environ:
        return None
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise command_line.UserError(
            f"cannot write {directory} ({error.strerror}): choose another --checkpoints_dir"
        ) from None
    path = os.path.join(directory, "log.txt")
    try:
        open(path, "a").close()
    except OSError:
        return None
    return path
