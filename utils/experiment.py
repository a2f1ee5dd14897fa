"""An experiment from its flags to its row: what the scripts share."""

import fcntl
import json
import os
import platform
import shlex
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from utils import checkpoint, command_line, cost, data, inference, networks, pruning, report, towers, training
from utils.command_line import UserError

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]


def define_flags(*, dataset, epochs, batch_size, learning_rate, weight_decay):
    """The flags of every experiment, with this one's hyperparameters as their defaults."""
    flags.DEFINE_enum("dataset", dataset, data.DATASETS, "The data set; digits needs no download.")
    flags.DEFINE_integer("epochs", epochs, "Epochs of training.", lower_bound=1)
    flags.DEFINE_integer("batch_size", batch_size, "Images a step on each tower.", lower_bound=1)
    flags.DEFINE_float(
        "learning_rate", learning_rate, "The rate for the weights; it falls to 0 on a line by the end.", lower_bound=0
    )
    flags.DEFINE_float(
        "weight_decay", weight_decay, "L2 decay of the kernels: half of it times their squares, an image.", 0
    )
    flags.DEFINE_integer("seed", 0, "Of the start, the order of the images and the noise.", 0, 2**31 - 1)
    flags.DEFINE_integer("num_gpus", None, "Towers, one a GPU; 0: the CPU. Default: the first GPU, else the CPU.", 0)
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "bfloat16 is Keras's mixed_bfloat16.")
    flags.DEFINE_bool(
        "validate", False, "Hold out the last 10,000 training images and report on them; the test set is not read."
    )
    flags.DEFINE_string("checkpoint", None, "A run's folder (or a .keras file) whose weights to start from.")
    flags.DEFINE_string(
        "data_dir", None, "Where the data is or is downloaded to. Default: $SBP_DATA_DIR, else the cache."
    )
    flags.DEFINE_bool("export", False, "Write the smaller network as saved_model/ and network.tflite, too.")
    flags.DEFINE_string("checkpoints_dir", None, "This run's folder. Default: checkpoints/ and the script's name.")
    flags.DEFINE_string("summaries_dir", None, "Where TensorBoard's summaries go. Default: the run's folder.")


def define_finetune_flags(epochs=0, learning_rate=1e-4):
    """The flags of fine-tuning what is left when the units are gone."""
    flags.DEFINE_integer(
        "finetune_epochs",
        epochs,
        "So many epochs more in the smaller network, the noise gone; the row shows both errors.",
        0,
    )
    flags.DEFINE_float(
        "finetune_learning_rate",
        learning_rate,
        "Adam's rate in them; linear to 0 over their second half.",
        lower_bound=1e-12,
    )


def run_folder(script):
    """checkpoints/<script>, and what makes this run another than the script's own: data set, schedule, width, seed,
    held-out images."""
    parts = [script]
    if FLAGS.dataset != FLAGS["dataset"].default:
        parts.append(FLAGS.dataset)
    if "schedule" in FLAGS and FLAGS.schedule != "paper":
        parts.append(FLAGS.schedule)
    if "width" in FLAGS and FLAGS.width != 1:
        parts.append(f"width{FLAGS.width:g}")
    if FLAGS.seed:
        parts.append(f"seed{FLAGS.seed}")
    if FLAGS.validate:
        parts.append("validate")
    return str(ROOT / "checkpoints" / "-".join(parts))


class Experiment:
    """One run of a script, from its flags to its row.

    Args:
        network, method: the paper's names of them.
        build: from the method's layers to the network, as in nets/.
        units: from the smaller network's kernels to its units a layer, as in nets/.
    Attributes:
        strategy: of tf.distribute; the network is made in its scope.
        train_set: data.Images.
    Raises:
        UserError: the flags, the data or the folder are not what they should be.
        SystemExit: the run is done already; its row has been printed.
    """

    def __init__(self, network, method, build, units):
        self.network, self.method, self.build, self.units = network, method, build, units
        self.script = Path(sys.argv[0]).stem
        self.folder = (FLAGS.checkpoints_dir or run_folder(self.script)).rstrip("/")
        # What makes the result what it is: every flag of ours but where things are.
        self.settings = {
            flag.name: flag.value
            for module, module_flags in FLAGS.flags_by_module_dict().items()
            for flag in module_flags
            if module.startswith(("utils.", sys.argv[0])) and not flag.name.endswith("_dir") and flag.name != "export"
        }
        done = report.read(self.folder)
        if done:
            self._refuse_other(done["settings"])
            print(f"{self.folder} is done; to train anew, give another --checkpoints_dir", file=sys.stderr)
            if FLAGS.export:
                inference.export(self.folder)
            self.print_rows()
            sys.exit(0)
        self.strategy = towers.strategy(FLAGS.num_gpus)
        keras.config.set_dtype_policy("mixed_bfloat16" if FLAGS.precision == "bfloat16" else "float32")
        keras.utils.set_random_seed(FLAGS.seed)
        self.data_dir = FLAGS.data_dir or data.default_data_dir()
        self.train_set = data.load(FLAGS.dataset, self.data_dir, "fit" if FLAGS.validate else "train", FLAGS.seed)
        if towers.is_chief(self.strategy):
            self._take_folder()
        arrays = checkpoint.latest(self.folder)
        if arrays:
            self._refuse_other(self._settings_of(arrays))

    def _take_folder(self):
        """Make the folder, and hold it: a second run in it is refused."""
        try:
            os.makedirs(self.folder, exist_ok=True)
            # Held until the process ends.
            self.lock = open(os.path.join(self.folder, ".lock"), "a")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing {self.folder}; wait for it or give --checkpoints_dir") from None
        except OSError as error:
            raise UserError(f"cannot write {self.folder} ({error.strerror}); give another --checkpoints_dir") from None

    def _settings_of(self, arrays):
        """The flags that a training checkpoint was made with."""
        try:
            return dict(json.loads(str(arrays["settings"])))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UserError(f"the checkpoint in {self.folder} is no run's; give another --checkpoints_dir") from None

    def _refuse_other(self, settings):
        # A flag that is younger than the run had its default.
        held = {name: settings.get(name, FLAGS[name].default) for name in self.settings}
        other = [_as_given(name, held[name]) for name, value in self.settings.items() if held[name] != value]
        if other:
            raise UserError(
                f"{self.folder} holds a run with {', '.join(other)}; ask for that, or give another --checkpoints_dir"
            )

    def pretrained(self, script):
        """The folder of the script's run on the same data; if there is none, it is made first, beside this run's.

        Raises:
            UserError: it has to be made, and there are several machines, or making it failed.
        """
        folders = [run_folder(script)]
        if FLAGS.checkpoints_dir:
            folders.append(f"{self.folder}-{script}")
        for folder in folders:
            if report.read(folder) and os.path.exists(os.path.join(folder, "network.keras")):
                return folder
        if report.read(folder):
            # Git has the row of a network that is too large for it.
            folder += "-network"
        if not report.read(folder):
            same = [
                "dataset",
                "data_dir",
                "schedule",
                "width",
                "seed",
                "num_gpus",
                "batch_size",
                "precision",
                "validate",
            ]
            same = [name for name in same if name in FLAGS]
            command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), f"--checkpoints_dir={folder}"]
            command += [f"--{name}={FLAGS[name].value}" for name in same if FLAGS[name].value is not None]
            if "TF_CONFIG" in os.environ:
                raise UserError(f"no {folder}: make it first, with {shlex.join(command)}")
            print(f"no {folder}: making it with {shlex.join(command)}", file=sys.stderr)
            command_line.call(command)
        return folder

    def units_in(self, path):
        """The units of a run's smaller network, to go on pruning from it.

        Args:
            path: a run's folder, or a .keras file.
        Raises:
            UserError: it is missing, is another network, or has a layer no more.
        """
        done = None if path.endswith(".keras") else report.read(path)
        if done and done["network"] != self.network:
            raise UserError(f"{path} is another network: it is {done['network']}, and this run's is {self.network}")
        units = self.units(cost.kernels(networks.load(_network_in(path))))
        if not all(units):
            raise UserError(f"{path} is another network, or one with a layer gone: its units are {units}")
        return units

    def start_from(self, path, model):
        """Set the model's weights to those of a run's smaller network, layer by layer of the same name.

        Args:
            path: a run's folder, or a .keras file.
            model: what to set; the noise and whatever else the network has not stays at its start.
        Raises:
            UserError: it is missing, is another network, or has seen the images that --validate holds out.
        """
        network = _network_in(path)
        refuse_seen(os.path.dirname(network))
        source = networks.load(network)
        shapes, others = cost.kernels(model), cost.kernels(source)
        for name in {**shapes, **others}:
            if others.get(name) != shapes.get(name):
                raise UserError(
                    f"{path} is another network: its {name} is {others.get(name, 'missing')}, and that of "
                    f"{self.network} {shapes.get(name, 'missing')}"
                )
        stored = {variable.path: variable for variable in source.weights}
        folded = [layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        if folded and f"{folded[0]}/gamma" not in stored:
            raise UserError(
                f"{path} has its batch normalisation in its convolutions, and a new {folded[0]} would undo it: this "
                "script starts from no network, leave --checkpoint out"
            )
        foreign = stored.keys() - {variable.path for variable in model.weights}
        if foreign:
            raise UserError(f"{path} is another network: {min(foreign)} has no place in this one")
        started = []
        for variable in model.weights:
            if variable.path not in stored:
                started.append(variable.path)
            elif stored[variable.path].shape == variable.shape:
                variable.assign(stored[variable.path])
            else:
                raise UserError(f"{path} is another network: its {variable.path} is of another shape")
        restored = dict.fromkeys(path_.split("/")[0] for path_ in stored)
        print(
            f"{path}: restored {', '.join(restored)}; at their start: {', '.join(started) or 'none'}", file=sys.stderr
        )

    def train(self, model, **settings):
        """Train the model as `training.train` says; returns it with fewer units if --shrink_every took some out."""
        reads, has = model.inputs[0].shape[1:], self.train_set.images.shape[1:]
        if reads != has:
            raise UserError(
                f"{self.network} reads images of {reads}, and --dataset={FLAGS.dataset} has {has}; take another"
            )
        flags_ = zlib.crc32(json.dumps(self.settings, sort_keys=True).encode())
        towers.agree(
            self.strategy, flags_, "the flags are not the same on all machines: start the same command on each"
        )
        model, self.seconds = training.train(
            model,
            self.train_set,
            folder=self.folder,
            strategy=self.strategy,
            epochs=FLAGS.epochs,
            batch_size=FLAGS.batch_size,
            weight_decay=FLAGS.weight_decay,
            seed=FLAGS.seed,
            summaries_dir=FLAGS.summaries_dir or self.folder,
            run=os.path.basename(self.folder),
            extra={"settings": np.array(json.dumps(self.settings))},
            **settings,
        )
        return model

    def finetune(self, model, *, prepare):
        """Train what `shrink` leaves of a model, in float32, for --finetune_epochs.

        Args:
            model: the trained network, noise and all.
            prepare: of `training.Step`.
        Returns:
            The smaller network after that; None if it was not asked for or there is no weight left to train.
        """
        if not FLAGS.finetune_epochs:
            return None
        with self.strategy.scope():
            smaller = _shrink(model)
        if not smaller.trainable_variables:
            print("no unit lives: there is nothing to fine-tune", file=sys.stderr)
            return None
        folder = os.path.join(self.folder, "finetune")
        os.makedirs(folder, exist_ok=True)
        tuned, seconds = training.train(
            smaller,
            self.train_set,
            folder=folder,
            strategy=self.strategy,
            epochs=FLAGS.finetune_epochs,
            batch_size=FLAGS.batch_size,
            weight_decay=FLAGS.weight_decay,
            seed=FLAGS.seed,
            summaries_dir=os.path.join(FLAGS.summaries_dir or self.folder, "finetune"),
            run=f"{os.path.basename(self.folder)}, fine-tuning",
            prepare=prepare,
            rate=lambda variable: FLAGS.finetune_learning_rate,
        )
        self.seconds += seconds
        return tuned

    def finish(self, model, prepare, tuned=None, **figures):
        """Shrink, measure once on the test set, write network.keras and result.json, print the row.

        Args:
            model: the trained network.
            prepare: from uint8 images to the network's input.
            tuned: what `finetune` returned; if not None, the row is its, and the error before it is kept beside it.
            figures: further ones of the method, for result.json.
        """
        if not towers.is_chief(self.strategy):
            return
        smaller, original = _shrink(model), self.build()
        test = data.load(FLAGS.dataset, self.data_dir, "held_out" if FLAGS.validate else "test", FLAGS.seed)
        logits, masked = (_logits(net, test.images, prepare) for net in (smaller, model))
        difference = float(np.abs(logits - masked).max())
        if tuned:
            figures["error_before_finetuning"] = _error(logits, test.labels)
            smaller, logits = tuned, _logits(tuned, test.images, prepare)
        macs = cost.multiply_adds(smaller)
        result = {
            "network": self.network,
            "method": self.method,
            "dataset": FLAGS.dataset,
            "seed": FLAGS.seed,
            "epochs": FLAGS.epochs,
            "error": _error(logits, test.labels),
            "units": self.units(cost.kernels(smaller)),
            "multiply_adds": macs,
            "flops_speedup": cost.multiply_adds(original) / macs if macs else None,
            **cost.speedups(original, smaller),
            "max_logit_difference": difference,
            **figures,
            "seconds": round(self.seconds, 1),
            "command": shlex.join(["python", *sys.argv]),
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
            },
            "settings": self.settings,
        }
        report.write(self.folder, result, smaller)
        if FLAGS.export:
            inference.export(self.folder)
        self.print_rows()

    def print_rows(self):
        """The Original's row, if it is there, and this run's, beside the paper's."""
        results = {}
        original = report.read(run_folder(self.script.rpartition("-")[0]))
        if original and original["method"] != self.method:
            results[original["method"]] = [original]
        results[self.method] = [report.read(self.folder)]
        print(report.text(self.network, FLAGS.dataset, report.rows(self.network, FLAGS.dataset, results)))


def _network_in(path):
    """The .keras file of a run's folder, or the file itself."""
    return path if path.endswith(".keras") else os.path.join(path, "network.keras")


def refuse_seen(folder):
    """Raise UserError where --validate holds out images that the run in a folder was trained on."""
    done = report.read(folder)
    if done and FLAGS.validate and not done["settings"].get("validate"):
        raise UserError(
            f"{folder} was trained on the images that --validate holds out: start from a run with --validate"
        )


def _as_given(name, value):
    """A flag as the command line has it."""
    return f"no --{name}" if value is None else f"--{name}={','.join(value) if isinstance(value, list) else value}"


def error(model, images, prepare):
    """The share of data.Images that a model gets wrong, in %; `prepare` makes its input of uint8 images."""
    return _error(_logits(model, images.images, prepare), images.labels)


def _error(logits, labels):
    return round(100 * float(np.mean(logits.argmax(-1) != labels)), 4)


def _shrink(model):
    """The smaller network in float32, however the model was trained."""
    keras.config.set_dtype_policy("float32")
    for layer in model.layers:
        layer.dtype_policy = "float32"
    return pruning.shrink(model)


def _logits(model, images, prepare):
    # Not model.predict: with several machines, it would wait for those that do not run it.
    starts = tqdm(range(0, len(images), 500), desc="testing", unit_scale=500, unit="image")
    batches = [model(prepare(images[start : start + 500]), training=False) for start in starts]
    return np.concatenate(batches).astype(np.float32)
