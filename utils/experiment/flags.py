"""Flags, made from the fields of dataclasses of options and read back into them. Nothing else reads flags."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from absl import flags

from keras_sbp.utils.experiment.settings import ROOT, Script, Settings, as_flag, flag_name
from keras_sbp.utils.io import download
from keras_sbp.utils.io.command_line import UserError

FLAGS = flags.FLAGS
Options = TypeVar("Options")
# What the name of a run's directory ends in, in this order, where a flag is not the script's default.
_SUFFIXES = {
    "dataset": "{}",
    "schedule": "{}",
    "width": "width{:g}",
    "shift": "shift{}",
    "seed": "seed{}",
    "validate": "validate",
}


def define(*groups: type, defaults: Mapping[str, Any], schedules: Sequence[str] = ()) -> None:
    """Define a flag for each field of these dataclasses.

    Args:
        defaults: {flag's name: its default}; the others have their fields' defaults.
        schedules: the choices of --schedule. With fewer than two, there is no such flag.
    """
    for group in groups:
        for field in dataclasses.fields(group):
            name = flag_name(group, field.name)
            if name == "schedule":
                if len(schedules) > 1:
                    flags.DEFINE_enum(
                        name, defaults["schedule"], schedules, f"{field.metadata['help']} Each has its defaults."
                    )
            else:
                _define(name, field, get_type_hints(group)[field.name], defaults)


def _define(name, field, kind, defaults):
    known, default = field.metadata, defaults.get(name, field.default)
    bounds = {"lower_bound": known["at_least"], "upper_bound": known["at_most"]}
    if type(None) in get_args(kind):
        kind, _ = get_args(kind)
    if known["choices"]:
        flags.DEFINE_enum(name, default, list(known["choices"]), known["help"])
    elif kind is bool:
        flags.DEFINE_bool(name, default, known["help"])
    elif kind is int:
        flags.DEFINE_integer(name, default, known["help"], **bounds)
    elif kind is float:
        flags.DEFINE_float(name, default, known["help"], **bounds)
    elif kind is str:
        flags.DEFINE_string(name, default, known["help"])
    else:
        flags.DEFINE_list(name, _as_default(default), known["help"])


def _as_default(value):
    return [f"{number:g}" for number in value] if isinstance(value, tuple) else value


def set_defaults(defaults: Mapping[str, Any]) -> None:
    """Set the flags that are not given: {flag's name: value}."""
    for name, value in defaults.items():
        FLAGS.set_default(name, _as_default(value))


def use_schedule(schedules: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the flags that are not given to the defaults of --schedule: {schedule: {flag's name: value}}."""
    if "schedule" in FLAGS:
        set_defaults(schedules[FLAGS.schedule])


def read(group: type[Options]) -> Options:
    """A dataclass with the values of its flags."""
    values = {}
    for field in dataclasses.fields(group):
        name = flag_name(group, field.name)
        if name in FLAGS:
            values[field.name] = FLAGS[name].value
            if get_type_hints(group)[field.name] == tuple[float, ...]:
                values[field.name] = _numbers(name, FLAGS[name].value)
    return group(**values)


def _numbers(name, given: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in given)
    except ValueError:
        raise UserError(f"--{name}={','.join(given)} is not a list of numbers: separate them by commas") from None


def script(*groups: type) -> Script:
    """This script, with what its flags mean for the runs that it makes or starts from."""
    parts = [
        form.format(FLAGS[name].value)
        for name, form in _SUFFIXES.items()
        if name in FLAGS and FLAGS[name].value != (1.0 if name == "width" else FLAGS[name].default)
    ]
    inherited = [
        as_flag(name, FLAGS[name].value)
        for group in groups
        for field in dataclasses.fields(group)
        if field.metadata["inherited"] and (name := flag_name(group, field.name)) in FLAGS
        and FLAGS[name].value is not None
    ]  # fmt: skip
    if "batch_size" in FLAGS and not FLAGS["batch_size"].using_default_value:
        inherited.append(as_flag("batch_size", FLAGS.batch_size))  # else each script has its own
    return Script(Path(sys.argv[0]).stem, "".join(f"-{part}" for part in parts), tuple(inherited))


def define_data_dir() -> None:
    """Define --data_dir alone, for scripts that run no experiment."""
    help = next(field.metadata["help"] for field in dataclasses.fields(Settings) if field.name == "data_dir")
    flags.DEFINE_string("data_dir", download.default_directory(), help)


def define_figures_dir() -> None:
    """Define --figures_dir."""
    flags.DEFINE_string("figures_dir", str(ROOT / "checkpoints" / "figures"), "Directory of the figures.")
