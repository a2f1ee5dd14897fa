"""What an experiment is told beside its method's hyperparameters, and which script runs it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sbp.utils.io import download
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.data import DATASETS
from keras_sbp.utils.io.options import check, in_todays_names, option

ROOT = Path(__file__).resolve().parents[2]
# They do not change a run's result.
_NOT_RECORDED = ("data_dir", "checkpoints_dir", "summaries_dir", "evaluate", "export", "timing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """An experiment's settings; `flags.py` turns each into a flag."""

    dataset: str = option("mnist", "Data set; digits needs no download.", choices=tuple(DATASETS), inherited=True)
    schedule: str = option("", "Which of a script's sets of hyperparameters this run has.", inherited=True)
    epochs: int = option(1, "Epochs of training; 0: only fine-tune the network of --checkpoint.", at_least=0)
    batch_size: int = option(128, "Images per step on each tower.", at_least=1)
    width: float = option(1.0, "Factor k on the width of every layer.", at_least=0.02, inherited=True)
    seed: int = option(0, "Random seed of weights, order and noise.", at_least=0, at_most=2**31 - 1, inherited=True)
    num_gpus: int | None = option(
        None, "Number of towers, a GPU each; 0: the CPU. Default: the first GPU, or else the CPU.", at_least=0,
        inherited=True,
    )  # fmt: skip
    precision: str = option(
        "float32", "bfloat16 is Keras's mixed_bfloat16.", choices=("float32", "bfloat16"), inherited=True
    )
    validate: bool = option(
        False, "Report on held-out training images (10,000; of digits 250); the test set is not read.", inherited=True
    )
    checkpoint: str | None = option(None, "Directory of a run, or a .keras file, whose weights to start from.")
    data_dir: str = option(
        download.default_directory(), "Where the data is or is downloaded to. Default: $SBP_DATA_DIR, or a cache.",
        inherited=True,
    )  # fmt: skip
    export: bool = option(False, "Also write saved_model/, network.tflite and network-int8.tflite.")
    evaluate: bool = option(
        False,
        "Do not train: measure the error and speed of the published network, or of the one in --checkpoint.",
    )
    timing: str = option(
        "row",
        "What is timed at the end. row: what the row shows, in seconds. all: one thread and all, one image and 1,024, "
        "LiteRT and TensorFlow.",
        choices=("row", "all"),
    )
    checkpoints_dir: str | None = option(None, "This run's directory. Default: checkpoints/ and the script's name.")
    summaries_dir: str | None = option(None, "Directory of TensorBoard's summaries. Default: the run's directory.")

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class Script:
    """The script that runs an experiment.

    Attributes:
        name: of its file, without .py.
        suffix: what the names of its runs' directories end in: data set, schedule, width, shift, seed, validate.
        inherited: flags for the scripts whose networks it starts from.
    """

    name: str
    suffix: str = ""
    inherited: tuple[str, ...] = ()

    @property
    def original(self) -> str | None:
        """The name of the Original's script, if this is a method's."""
        name = self.name.rpartition("-")[0]
        return name if (ROOT / "scripts" / f"{name}.py").exists() else None

    def directory(self, name: str | None = None) -> str:
        """The directory of such a run of this script, or of another."""
        return str(ROOT / "checkpoints" / f"{name or self.name}{self.suffix}")

    def published_directory(self, name: str | None = None) -> str:
        """The directory in git of such a run, if it is published."""
        return str(ROOT / "checkpoints" / "published" / f"{name or self.name}{self.suffix}")


def record(*groups: Any) -> dict[str, Any]:
    """What identifies a run, for result.json: the fields of dataclasses of options, named like their flags."""
    values = {}
    for group in groups:
        for field in dataclasses.fields(group) if dataclasses.is_dataclass(group) else []:
            if field.name not in _NOT_RECORDED:
                value = getattr(group, field.name)
                values[flag_name(group, field.name)] = list(value) if isinstance(value, tuple) else value
    return values


def flag_name(group: Any, field: str) -> str:
    """The flag's name of a dataclass's field."""
    return f"{getattr(group, 'FLAG_PREFIX', '')}{field}"


def stored_record(arrays: Mapping[str, np.ndarray], directory: str) -> dict[str, Any]:
    """The record in a training checkpoint.

    Raises:
        UserError: there is none.
    """
    try:
        record = json.loads(str(arrays["settings"]))
        if not isinstance(record, dict) or "dataset" not in record:
            raise ValueError
        return record
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{directory} does not contain a training checkpoint: choose another --checkpoints_dir"
        ) from None


def check_same(directory: str, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a directory's run has the record that is wanted, as far as its record goes.

    Raises:
        UserError: it has other settings, or is of another network or method.
    """
    held = in_todays_names(held)
    for kind in ("network", "method"):
        if kind in held and kind in wanted and held[kind] != wanted[kind]:
            raise UserError(
                f"{directory} holds a run of {held[kind]}, not of {wanted[kind]}: choose another --checkpoints_dir"
            )
    other = [as_flag(name, held[name]) for name, value in wanted.items() if name in held and held[name] != value]
    if other:
        raise UserError(
            f"{directory} holds a run with {', '.join(other)}: rerun with these flags or choose another "
            "--checkpoints_dir"
        )


def as_flag(name: str, value: Any) -> str:
    """A flag as the command line has it."""
    if value is None:
        return f"no --{name}"
    return f"--{name}={','.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
