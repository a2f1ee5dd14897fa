"""Where a network's training starts: from the weights of a finished run."""

import os
import shlex
import sys

import keras

from keras_sbp.utils import pruning
from keras_sbp.utils.experiment import finished
from keras_sbp.utils.experiment.precision import dtype_policy
from keras_sbp.utils.experiment.run import Experiment
from keras_sbp.utils.experiment.settings import ROOT
from keras_sbp.utils.experiment.table import original_directory
from keras_sbp.utils.io import checkpoint, command_line, networks, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting


def find_or_train(run: Experiment, name: str) -> str:
    """What `run` starts from: its --checkpoint, or another script's run of the same data set, schedule, width and seed.

    That is a run of this checkout, or else the published one, or else it is trained first, by another process, with the
    inherited flags. A run that goes on keeps what it has started from. Call this before any network is built, which
    takes a whole GPU.

    Args:
        name: of the other script.
    Returns:
        A directory, or a .keras file.
    Raises:
        UserError: it has to be trained, and there are several machines; the experiment has neither a script nor a
            checkpoint; or what the run has started from is gone.
        SystemExit: training it failed, with that status.
    """
    run.start = os.path.abspath(run.settings.checkpoint or _started_from(run) or _found_or_trained(run, name))
    return run.start


def _started_from(run):
    """What the run's checkpoint says it has started from; None if the run is new."""
    start = str((checkpoint.latest(run.directory) or {}).get("start", ""))
    if start and not os.path.exists(start):
        raise UserError(
            f"{run.directory} has started from {start}, which is gone: put it back, or choose another --checkpoints_dir"
        )
    return start or None


def _found_or_trained(run, name):
    if not run.script:
        raise UserError("a run without a script starts from Settings(checkpoint=...): give a run's directory")
    directory = original_directory(run, name)
    for candidate in (directory, run.script.directory(name), run.script.published_directory(name)):
        if report.read(candidate) and os.path.exists(os.path.join(candidate, "network.keras")):
            return candidate
    if not report.read(directory):
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py")]
        # Without one, the other script chooses the same directory, and so do the scripts that it starts from.
        command += [f"--checkpoints_dir={directory}"] if run.settings.checkpoints_dir else []
        command += run.script.inherited
        if "TF_CONFIG" in os.environ:
            raise UserError(f"no {directory}: train it first, with {shlex.join(command)}")
        print(f"no {directory}: training it with {shlex.join(command)}", file=sys.stderr)
        command_line.call(command)
    return directory


def train_original(run: Experiment) -> report.Result:
    """Train a network without a method's layers, from random weights or those of --checkpoint, and finish the run."""
    model = run.build()
    if run.settings.checkpoint:
        load_weights(run, model, run.settings.checkpoint)
    return run.finish(run.train(model))


def build_from(run: Experiment, name: str) -> keras.Model:
    """The network that another script's run left, with the method's noise; without it if no epoch trains it.

    Batch normalization is folded into its convolutions, and stays so while there is noise.

    Args:
        name: of the other script, as `find_or_train` takes it.
    Raises:
        UserError: as `find_or_train`, `live_units` and `load_weights`.
    """
    start = find_or_train(run, name)
    unit = run.method.unit if run.settings.epochs else keras.layers.Identity
    model = run.build(unit=unit, norm=keras.layers.Identity, counts=live_units(run, start))
    load_weights(run, model, start)
    return model


def live_units(run: Experiment, path: str) -> list[int]:
    """The units per layer of another run's smaller network, to go on pruning it.

    Args:
        path: a run's directory, or a .keras file.
    Raises:
        UserError: it is missing, is of another network, or a layer is gone.
    """
    done = None if path.endswith(".keras") else report.read(path)
    if done and done["network"] != run.title:
        raise UserError(f"{path} is another network: it is {done['network']}, and this run's is {run.title}")
    units = run.network.units(counting.kernels(networks.load(finished.network_file(path))))
    if not all(units):
        raise UserError(f"{path} is another network, or one with a layer gone: its units are {units}")
    return units


def load_smaller(run: Experiment, path: str) -> keras.Model:
    """Another run's smaller network as it is, for a run that only fine-tunes it.

    Args:
        path: a run's directory, or a .keras file.
    Raises:
        UserError: as `live_units`, or it was trained on the images that --validate holds out.
    """
    live_units(run, path)
    return finished.load(path, run.settings)


def load_weights(run: Experiment, model: keras.Model, path: str) -> None:
    """Set a model's weights to those of another run's smaller network, layer by layer of the same name.

    The noise and whatever else that network does not have keeps its initial values.

    Args:
        path: a run's directory, or a .keras file.
    Raises:
        UserError: it is missing, is another network, or was trained on the images that --validate holds out.
    """
    source = finished.load(path, run.settings)
    _check_same_network(model, source, path)
    stored = {variable.path: variable for variable in source.weights}
    for variable in model.weights:
        if variable.path in stored:
            variable.assign(stored[variable.path])
    restored = dict.fromkeys(name.split("/")[0] for name in stored)
    initial = [variable.path for variable in model.weights if variable.path not in stored]
    print(f"{path}: restored {', '.join(restored)}; initialized: {', '.join(initial) or 'none'}", file=sys.stderr)


def insert_noise(run: Experiment, model: keras.Model) -> keras.Model:
    """A network of any layers with the method's noise on every group of units (`pruning.insert`).

    Raises:
        UserError: with these hyperparameters all units would be dead from the start.
    """
    method = run.method
    noise = {"threshold": method.threshold, "criterion": method.criterion, "log_sigma": method.log_sigma}
    with run.strategy.scope(), dtype_policy(run.settings.precision):
        try:
            return pruning.insert(model, **noise)
        except ValueError as error:
            raise UserError(str(error)) from None


def _check_same_network(model, source, path):
    """Raise UserError where a model cannot take the weights of `source`, which is from `path`."""
    shapes, others = counting.kernels(model), counting.kernels(source)
    for name in {**shapes, **others}:
        if others.get(name) != shapes.get(name):
            raise UserError(
                f"{path} is another network: its {name} is {others.get(name, 'missing')}, and that of {model.name} "
                f"{shapes.get(name, 'missing')}"
            )
    stored = {variable.path: variable.shape for variable in source.weights}
    norms = [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if norms and f"{norms[0]}/gamma" not in stored:
        raise UserError(
            f"{path} has its batch normalization folded into its convolutions, which a new {norms[0]} would undo: this "
            "script starts from scratch, leave out --checkpoint"
        )
    shapes = {variable.path: variable.shape for variable in model.weights}
    for name in sorted(stored):
        if name not in shapes:
            raise UserError(f"{path} is another network: {model.name} has no {name}")
        if stored[name] != shapes[name]:
            raise UserError(f"{path} is another network: its {name} has another shape")
