"""Where a network's training starts: from the weights of a run that is done."""

import os
import shlex
import sys

import keras
from absl import flags

from keras_sbp.utils.experiment.flags import ROOT, original_folder, published_folder, run_folder
from keras_sbp.utils.io import command_line, networks, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS
# The flags that a run takes over from the run that it is made for.
SAME = ("dataset", "data_dir", "schedule", "width", "shift", "seed", "num_gpus", "precision", "validate")


def pretrained(script, folder):
    """The folder of the script's run on the same data: one of this checkout, or else the published one; if there is
    none, it is made first, by another process. Call this before anything is built: a process takes a whole GPU.

    Args:
        script: its name.
        folder: of the run that starts from it.
    Raises:
        UserError: it has to be made, and there are several machines.
        SystemExit: making it failed, with that status.
    """
    place = original_folder(script, folder)
    for made in (place, run_folder(script), published_folder(script)):
        if report.read(made) and os.path.exists(os.path.join(made, "network.keras")):
            return made
    if not report.read(place):
        command = [sys.executable, str(ROOT / "scripts" / f"{script}.py")]
        # Without one the other script has the same folder, and what it makes in turn is where others look for it.
        command += [f"--checkpoints_dir={place}"] if FLAGS.checkpoints_dir else []
        given = {name: FLAGS[name].value for name in SAME if name in FLAGS}
        if not FLAGS["batch_size"].using_default_value:
            given["batch_size"] = FLAGS.batch_size  # it has a default of its own
        command += [f"--{name}={value}" for name, value in given.items() if value is not None]
        if "TF_CONFIG" in os.environ:
            raise UserError(f"no {place}: make it first, with {shlex.join(command)}")
        print(f"no {place}: making it with {shlex.join(command)}", file=sys.stderr)
        command_line.call(command)
    return place


def units_in(path, run):
    """The units of a run's smaller network, to go on pruning from it.

    Args:
        path: a run's folder, or a .keras file.
        run: the `Experiment` that goes on.
    Raises:
        UserError: it is missing, is another network, or has a layer no more.
    """
    done = None if path.endswith(".keras") else report.read(path)
    if done and done["network"] != run.network:
        raise UserError(f"{path} is another network: it is {done['network']}, and this run's is {run.network}")
    units = run.units(counting.kernels(networks.load(_network_in(path))))
    if not all(units):
        raise UserError(f"{path} is another network, or one with a layer gone: its units are {units}")
    return units


def set_weights(model, path):
    """Set a model's weights to those of a run's smaller network, layer by layer of the same name.

    Args:
        model: what to set; the noise and whatever else the network has not stays at its start.
        path: a run's folder, or a .keras file.
    Raises:
        UserError: it is missing, is another network, or has seen the images that --validate holds out.
    """
    network = _network_in(path)
    _refuse_seen(os.path.dirname(network))
    source = networks.load(network)
    _refuse_other(model, source, path)
    stored = {variable.path: variable for variable in source.weights}
    for variable in model.weights:
        if variable.path in stored:
            variable.assign(stored[variable.path])
    restored = dict.fromkeys(name.split("/")[0] for name in stored)
    started = [variable.path for variable in model.weights if variable.path not in stored]
    print(f"{path}: restored {', '.join(restored)}; at their start: {', '.join(started) or 'none'}", file=sys.stderr)


def _refuse_seen(folder):
    """Raise UserError where --validate holds out images that the run in a folder was trained on."""
    done = report.read(folder)
    if done and FLAGS.validate and not done["settings"].get("validate"):
        raise UserError(
            f"{folder} was trained on the images that --validate holds out: start from a run with --validate"
        )


def _refuse_other(model, source, path):
    """Raise UserError where a model cannot take the weights of `source`, which is that of `path`."""
    shapes, others = counting.kernels(model), counting.kernels(source)
    for name in {**shapes, **others}:
        if others.get(name) != shapes.get(name):
            raise UserError(
                f"{path} is another network: its {name} is {others.get(name, 'missing')}, and that of {model.name} "
                f"{shapes.get(name, 'missing')}"
            )
    stored = {variable.path: variable.shape for variable in source.weights}
    folded = [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if folded and f"{folded[0]}/gamma" not in stored:
        raise UserError(
            f"{path} has its batch normalisation in its convolutions, and a new {folded[0]} would undo it: this "
            "script starts from no network, leave --checkpoint out"
        )
    shapes = {variable.path: variable.shape for variable in model.weights}
    for name in sorted(stored):
        if name not in shapes:
            raise UserError(f"{path} is another network: {name} has no place in this one")
        if stored[name] != shapes[name]:
            raise UserError(f"{path} is another network: its {name} is of another shape")


def _network_in(path):
    """The .keras file of a run's folder, or the file itself."""
    return path if path.endswith(".keras") else os.path.join(path, "network.keras")
