"""Prunes a Keras classifier of images, sequences or features: trains it with noise, removes dead units, saves the rest.

    python scripts/prune.py MODEL.keras --data=DATA.npz --output=smaller.keras
    python scripts/prune.py --model=MobileNetV2 --data=DATA.npz --output=mobile.keras --epochs=30

DATA.npz (numpy.savez) holds x as the network reads it and y, the classes from 0; x_test and y_test if there is a test
set, else the last tenth of x is used. Without --data: scikit-learn's digits. Prints the units of each layer, before and
after, and accuracy, MACs, parameters, file size and time. A killed run continues when the command is repeated.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
from absl import flags

from keras_sbp.utils import pruning
from keras_sbp.utils.deployment import runtimes, timing
from keras_sbp.utils.io import checkpoint, command_line, networks, npz, report
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting, fit, graph

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A network of keras.applications, randomly initialized, instead of MODEL.keras.")
flags.DEFINE_string("data", None, "A .npz file with x, y and, if there is a test set, x_test, y_test. Default: digits.")
flags.DEFINE_string("checkpoint", None, "Weights to start from: a .weights.h5 or .keras file of the same network.")
flags.DEFINE_string("output", "smaller.keras", "Where the smaller network goes.")
flags.DEFINE_string(
    "checkpoints_dir", None, "Folder from which a killed run continues. Default: --output without .keras, then -run."
)
flags.DEFINE_integer("epochs", 20, "Epochs of training with noise.", lower_bound=1)
flags.DEFINE_integer("finetune_epochs", 0, "Epochs more of the smaller network, without noise.", lower_bound=0)
flags.DEFINE_integer("batch_size", 128, "Examples a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Adam's rate for the weights.", lower_bound=0)
flags.DEFINE_float("noise_learning_rate", 5e-2, "Adam's rate for the noise.", lower_bound=0)
flags.DEFINE_float("kl_scale", 1.0, "Factor on the KL divergence in the loss; a larger factor prunes more.", 1e-9)
flags.DEFINE_float(
    "price",
    4.0,
    "At the start, the KL divergence of a unit is multiplied by 1 + price * cost: the MACs saved by removing the unit, "
    "relative to the mean of all units. The price falls linearly to 0 over the first half of the epochs.",
    lower_bound=0,
)
flags.DEFINE_float("threshold", 1.0, "Units whose signal-to-noise ratio is at most this are removed.", lower_bound=0)
flags.DEFINE_integer(
    "multiple_of",
    1,
    "Fill the filters of convolutions up to a multiple with zeros: a GPU is much faster with multiples of 8.",
    lower_bound=1,
)
flags.DEFINE_list("exclude", [], "Names of layers whose units all stay.")
flags.DEFINE_integer(
    "seed", 0, "Random seed of the initial weights, the order of the examples and the noise.", 0, 2**31 - 1
)

# Flags that make no difference to the training.
NOT_IN_TRAINING = ("output", "checkpoints_dir", "multiple_of")
# Examples per timed batch, and how often each network is timed, alternating.
TIMED_BATCH, TIMED_PAIRS = 32, 30


def main(files):
    keras.utils.set_random_seed(FLAGS.seed)
    network = files[0] if len(files) == 1 else None
    if bool(network) == bool(FLAGS.model) or len(files) > 1:
        raise UserError("give one network: python scripts/prune.py MODEL.keras, or --model=NAME")
    if not FLAGS.output.endswith(".keras"):
        raise UserError(f"--output={FLAGS.output} must end in .keras")
    if os.path.exists(FLAGS.output):
        raise UserError(f"{FLAGS.output} already exists: delete it or choose another --output")
    model = networks.load(network) if network else None
    if model and not model.built:
        raise UserError(
            f"{network} is not built: give its first layer an Input, or call it on something, before saving"
        )
    data = npz.read(FLAGS.data, model.input_shape[1:] if model else (32, 32, 3))
    model = model or application(data)
    check(model, data)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not are_probabilities(model, data))
    noisy, why = with_noise(model, len(data.y))
    # Held until the process ends.
    folder, _held = take_folder(network)
    with contextlib.redirect_stdout(sys.stderr):
        train(noisy, data, loss, folder)
        smaller = pruning.shrink(noisy)
        if FLAGS.finetune_epochs and smaller.trainable_variables:
            optimizer = keras.optimizers.Adam(FLAGS.learning_rate)
            run(smaller, data, loss, optimizer, FLAGS.finetune_epochs, folder / "finetuning")
    counts = units(noisy, smaller, why)
    if FLAGS.multiple_of > 1:
        smaller = pruning.pad_filters(smaller, FLAGS.multiple_of)
    save(smaller, folder)
    print(report.align(counts, "<>><"), end="\n\n")
    print(report.align(metrics(model, smaller, data, loss), "<>>>"))


def application(data):
    """The network --model for the data."""
    build = getattr(keras.applications, FLAGS.model, None)
    if not FLAGS.model[:1].isupper() or not callable(build):
        names = [name for name in dir(keras.applications) if name[0].isupper()]
        raise UserError(f"keras.applications has no {FLAGS.model}: choose one of {', '.join(names)}")
    try:
        return build(weights=None, input_shape=data.x.shape[1:], classes=int(max(data.y.max(), data.y_test.max())) + 1)
    except ValueError as error:
        raise UserError(
            f"{FLAGS.model} does not take examples of {data.x.shape[1:]} ({error}): choose another --model"
        ) from None


def check(model, data):
    """Refuse a network and data that do not fit, and load --checkpoint."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise UserError(
            f"{model.name} has {len(model.inputs)} inputs and outputs of {model.output_shape}, and this script takes "
            "networks of one input and a number for each class: call keras_sbp.insert and keras_sbp.shrink yourself"
        )
    wanted = model.input_shape[1:]
    if len(wanted) != data.x.ndim - 1 or any(a not in (None, b) for a, b in zip(wanted, data.x.shape[1:])):
        raise UserError(
            f"{model.name} reads examples of {wanted}, and --data has {data.x.shape[1:]}: bring them to its shape"
        )
    classes = model.output_shape[-1]
    if max(data.y.max(), data.y_test.max()) >= classes:
        raise UserError(
            f"{model.name} knows classes 0 to {classes - 1}, and --data has more: give it an output for each"
        )
    tokens = vocabulary(model)
    if tokens and not 0 <= min(data.x.min(), data.x_test.min()) <= max(data.x.max(), data.x_test.max()) < tokens:
        raise UserError(
            f"{model.name} knows tokens 0 to {tokens - 1}, and --data has others: give it an Embedding of all of them"
        )
    if FLAGS.batch_size > len(data.y):
        raise UserError(f"--batch_size={FLAGS.batch_size} is more than the {len(data.y)} examples: use a smaller value")
    if FLAGS.checkpoint:
        try:
            model.load_weights(FLAGS.checkpoint)
        except Exception as error:  # whatever a damaged file makes Keras raise
            raise UserError(
                f"{FLAGS.checkpoint} has no weights for {model.name} ({error}): give a file of its own"
            ) from None


def vocabulary(model):
    """How many tokens the Embedding that reads the model's input knows; None if no Embedding does."""
    try:
        opened = graph.flatten_nested(model)
    except ValueError as error:
        raise UserError(str(error)) from None
    read = [node.operation for node in graph.nodes(opened) if any(x is opened.inputs[0] for x in node.input_tensors)]
    return min((layer.input_dim for layer in read if isinstance(layer, keras.layers.Embedding)), default=None)


def are_probabilities(model, data):
    """Whether the outputs for some examples are a softmax's; else they are logits.

    Raises:
        UserError: they are neither.
    """
    outputs = model.predict_on_batch(data.x[:100]).astype(float)
    if outputs.min() < 0 or outputs.max() > 1.01 or not outputs.any():
        return False
    if not np.allclose(outputs.sum(1), 1, atol=0.01):
        raise UserError(
            f"{model.name} outputs neither probabilities nor logits: this script is for classification; call "
            "keras_sbp.insert and keras_sbp.shrink yourself"
        )
    return True


def with_noise(model, count):
    """The network with noise in it, and {layer's name: why its units stay}."""
    try:
        if FLAGS.multiple_of > 1:
            # Where it cannot be done, that is said before the training.
            pruning.pad_filters(model, FLAGS.multiple_of)
        noisy = pruning.insert(model, FLAGS.kl_scale / count, FLAGS.exclude, FLAGS.threshold)
        return noisy, pruning.unprunable(model, FLAGS.exclude)
    except ValueError as error:
        raise UserError(str(error)) from None


def take_folder(network):
    """The folder of this run, of these settings, and what holds it."""
    folder = Path(FLAGS.checkpoints_dir or f"{FLAGS.output.removesuffix('.keras')}-run")
    settings = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])} | {"network": network}
    settings = {name: settings[name] for name in settings if name not in NOT_IN_TRAINING}
    files = {path: digest(path) for path in (network, FLAGS.data, FLAGS.checkpoint) if path}
    text = json.dumps(settings | {"files": files}, sort_keys=True)
    held = checkpoint.lock_directory(str(folder))
    try:
        if (folder / "settings.json").exists() and (folder / "settings.json").read_text() != text:
            raise UserError(f"{folder} holds a run with other flags or files: choose another --checkpoints_dir")
        checkpoint.write(str(folder / "settings.json"), lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}); give another --checkpoints_dir") from None
    return folder, held


def digest(path):
    """Tells what is in a file from what else might be."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def train(noisy, data, loss, folder):
    """Train the network with noise."""
    rates = (FLAGS.learning_rate, FLAGS.noise_learning_rate)
    optimizer = fit.optimizer(*map(keras.optimizers.Adam, rates))
    run(noisy, data, loss, optimizer, FLAGS.epochs, folder / "training", fit.LogLiveUnits(), fit.AnnealKL(FLAGS.price))


def run(model, data, loss, optimizer, epochs, folder, *callbacks):
    """Train for this many epochs, from the last one in the folder."""
    model.compile(optimizer, loss, metrics=["accuracy"])
    # Where fit makes the variables of optimiser and metrics, in the midst of its step, it traces that step twice.
    model.optimizer.build(model.trainable_variables)
    model.test_step((data.x[:1], data.y[:1]))
    backup = keras.callbacks.BackupAndRestore(str(folder), double_checkpoint=True, delete_checkpoint=False)
    stop = keras.callbacks.TerminateOnNaN()
    try:
        mend(folder)
        model.fit(data.x, data.y, FLAGS.batch_size, epochs, callbacks=[backup, stop, *callbacks])
    except OSError as error:
        raise UserError(
            f"cannot write {folder} ({error.strerror or error}): free disk space; the same command goes on from there"
        ) from None
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError("the loss is no longer finite: give lower learning rates and another --checkpoints_dir")


def mend(folder):
    """Put the backup before the last one back, or none, where a kill left Keras's last one without its epoch."""
    names = "latest.weights.h5", "training_metadata.json"
    try:
        json.loads((folder / names[1]).read_text())
    except (FileNotFoundError, ValueError):
        for name in names:
            (folder / name).unlink(missing_ok=True)
            if all((folder / f"{each}.bkp").exists() for each in names):
                shutil.copy(folder / f"{name}.bkp", folder / name)


def save(smaller, folder):
    """Write --output, whole or not at all; if it cannot be written, `folder` still holds the training."""
    try:
        content = networks.content(smaller)
        checkpoint.write(os.path.abspath(FLAGS.output), lambda file: file.write(content))
    except OSError as error:
        raise UserError(
            f"cannot write {FLAGS.output} ({error.strerror or error}); give another --output, and "
            f"--checkpoints_dir={folder}, where the training is"
        ) from None


def units(noisy, smaller, why):
    """A line a layer with weights: its units before and after, and why they stay."""
    before, after = counting.units(noisy), counting.units(smaller)
    lines = [(name, str(count), str(after.get(name, 0)), why.get(name, "")) for name, count in before.items()]
    return [("Layer", "Units", "after", ""), *lines]


def metrics(model, smaller, data, loss):
    """Accuracy, sizes and time of both networks."""
    lines, sizes = [("", "before", "after", "")], []
    for network in (model, smaller):
        network.compile("sgd", loss, metrics=["accuracy"])
        size = len(networks.content(network))
        with contextlib.redirect_stdout(sys.stderr):
            accuracy = network.evaluate(data.x_test, data.y_test, verbose=0)[1]
        sizes.append((accuracy, counting.multiply_adds(network), network.count_params(), size))
    lines.append(("Accuracy, %", *(f"{100 * accuracy:.2f}" for accuracy, *_ in sizes), ""))
    for name, before, after in zip(("Multiply-adds", "Parameters", "File, bytes"), *(found[1:] for found in sizes)):
        lines.append((name, f"{before:,}", f"{after:,}", f"{before / max(after, 1):.2f}x"))
    seconds = timing.seconds_per_batch(model, smaller, TIMED_BATCH, TIMED_PAIRS, runtimes.TensorFlow("CPU:0"), data.x)
    before, after = 1000 * np.median(seconds, axis=0)
    faster = np.median(seconds[:, 0] / seconds[:, 1])
    lines.append((f"CPU, ms for {TIMED_BATCH}", f"{before:.2f}", f"{after:.2f}", f"{faster:.2f}x"))
    return lines


if __name__ == "__main__":
    command_line.run(main, accepts_files=True)
