"""Networks of finished runs: what another run's training starts from, or its teacher."""

import os

import keras

from keras_sbp.utils.experiment.precision import use_bfloat16
from keras_sbp.utils.experiment.settings import Settings
from keras_sbp.utils.io import networks, report
from keras_sbp.utils.io.command_line import UserError


def load(path: str, settings: Settings) -> keras.Model:
    """A finished run's smaller network, in float32.

    Args:
        path: the run's directory, or a .keras file.
        settings: of the run that needs it.
    Raises:
        UserError: it is missing or damaged, or was trained on the images that --validate holds out.
    """
    file = network_file(path)
    if settings.validate:
        _check_held_out(os.path.dirname(file))
    return networks.load(file)


def load_teacher(path: str, settings: Settings, student: keras.Model) -> keras.Model:
    """As `load`, in the precision of the run: a network whose outputs are soft targets for another.

    Raises:
        UserError: as `load`, or it reads or returns something else than the student.
    """
    teacher = load(path, settings)
    found, wanted = ((model.input_shape[1:], model.output_shape[1:]) for model in (teacher, student))
    if found != wanted:
        raise UserError(
            f"{path} cannot be the teacher: it reads {found[0]} and returns {found[1]}, not {wanted[0]} and {wanted[1]}"
        )
    if settings.precision == "bfloat16":
        use_bfloat16(teacher)
    return teacher


def network_file(path: str) -> str:
    """The .keras file of a run's directory, or the file itself."""
    return path if path.endswith(".keras") else os.path.join(path, "network.keras")


def _check_held_out(directory):
    """Raise UserError where the run in a directory was trained on the images that --validate holds out."""
    done = report.read(directory)
    if done and not done["settings"].get("validate"):
        raise UserError(
            f"{directory} was trained on the images that --validate holds out: start from a run with --validate"
        )
