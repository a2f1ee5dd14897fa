"""An experiment from its flags to its row: what the scripts share."""

import functools
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

from keras_sbp.utils import pruning, training
from keras_sbp.utils.deployment import arrange, timing
from keras_sbp.utils.experiment import export, published, testing
from keras_sbp.utils.experiment.flags import ROOT, as_given, original_folder, published_folder, run_folder
from keras_sbp.utils.io import checkpoint, data, report, towers
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.pruning import counting

FLAGS = flags.FLAGS
STATISTICS = 500  # training images for batch normalisation and for the ranges of int8


class Experiment:
    """One run of a script, from its flags to its row.

    Args:
        network, method: their names in the tables.
        build: from the method's layers to the network, as in nets/.
        units: from the smaller network's kernels to its units a layer, as in nets/.
        prepare: from uint8 images to the network's input.
    Attributes:
        strategy: of tf.distribute; the network is made in its scope.
        train_set: data.Images.
    Raises:
        UserError: the flags, the data or the folder are not what they should be.
        SystemExit: the run is done already, or --evaluate was asked for; its row has been printed.
    """

    def __init__(self, network, method, build, units, prepare):
        self.network, self.method, self.original, self.units, self.prepare = network, method, build, units, prepare
        self.script = Path(sys.argv[0]).stem
        if FLAGS.evaluate:
            published.evaluate(self)
            sys.exit(0)
        self.folder = (FLAGS.checkpoints_dir or run_folder(self.script)).rstrip("/")
        # What makes the result what it is: every flag of ours but where things are.
        self.settings = {
            flag.name: flag.value
            for module, module_flags in FLAGS.flags_by_module_dict().items()
            for flag in module_flags
            if module.startswith(("keras_sbp.", sys.argv[0]))
            and not flag.name.endswith("_dir")
            and flag.name not in ("evaluate", "export")
        }
        if done := report.read(self.folder):
            self._refuse_other(done["settings"])
            print(f"{self.folder} is done; to train anew, give another --checkpoints_dir", file=sys.stderr)
            self._export()
            self.print_rows()
            sys.exit(0)
        self.strategy = towers.strategy(FLAGS.num_gpus)
        keras.config.set_dtype_policy("mixed_bfloat16" if FLAGS.precision == "bfloat16" else "float32")
        keras.utils.set_random_seed(FLAGS.seed)
        self.train_set = self._images("fit" if FLAGS.validate else "train")
        if towers.is_chief(self.strategy):
            # Held until the process ends.
            self.lock = checkpoint.hold(self.folder)
        self.tuning = os.path.join(self.folder, "finetune")
        for stage in (self.folder, self.tuning):
            if arrays := checkpoint.latest(stage):
                self._refuse_other(self._settings_of(arrays))

    def _images(self, split):
        return data.load(FLAGS.dataset, FLAGS.data_dir, split, FLAGS.seed)

    def test_set(self):
        """The images that the run reports on: the test set, or with --validate those that are held out of training."""
        return self._images("held_out" if FLAGS.validate else "test")

    def examples(self):
        """Some training images, as the network reads them."""
        return self.prepare(self._images("fit" if FLAGS.validate else "train").images[:STATISTICS])

    def error(self, model):
        """What a network, or what is called as one, gets wrong of the test set, in %."""
        return testing.error(model, self.test_set(), self.prepare)

    def _stamp(self):
        """What checkpoints hold of the flags."""
        return {"settings": np.array(json.dumps(self.settings))}

    def _settings_of(self, arrays):
        """The flags that a training checkpoint was made with."""
        try:
            return dict(json.loads(str(arrays["settings"])))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UserError(f"the checkpoint in {self.folder} is no run's; give another --checkpoints_dir") from None

    def _refuse_other(self, settings):
        held = {name: settings.get(name, FLAGS[name].default) for name in self.settings}
        other = [as_given(name, held[name]) for name, value in self.settings.items() if held[name] != value]
        if other:
            raise UserError(
                f"{self.folder} holds a run with {', '.join(other)}; ask for that, or give another --checkpoints_dir"
            )

    def build(self, **method):
        """The network with the method's layers, on every tower; UserError if the data has images of another shape."""
        with self.strategy.scope():
            model = self.original(**method)
        reads, has = model.inputs[0].shape[1:], self.train_set.images.shape[1:]
        if reads != has:
            raise UserError(
                f"{self.network} reads images of {reads}, and --dataset={FLAGS.dataset} has others, of {has}: choose a "
                "data set with such images"
            )
        return model

    def normalised(self, model):
        """What `shrink` leaves of a model, with batch normalisation put back in, in --precision."""
        with self.strategy.scope():
            images = self.prepare(self.train_set.images[:STATISTICS])
            return _in_precision(pruning.insert_batch_norm(_shrink(model), images))

    def train(self, model, objective, updates, *, prepare=None, **options):
        """Train the model, with fewer units at the end if --shrink_every took some out.

        Args:
            objective, updates: `training.Objective` and `training.Updates`.
            prepare: what training reads of the images, if it is not what the network is tested on: `training.Batches`.
            options: of `training.train`.
        Raises:
            UserError: machines have other flags, or as `training.train` says.
            SystemExit: as `training.train` says.
        """
        flags_ = zlib.crc32(json.dumps(self.settings, sort_keys=True).encode())
        towers.agree(
            self.strategy, flags_, "the flags are not the same on all machines: start the same command on each"
        )
        make = self._steps(objective, updates, FLAGS.epochs, prepare)
        model, self.seconds = training.train(
            model,
            make,
            self.strategy,
            self.folder,
            name=os.path.basename(self.folder),
            summaries_dir=FLAGS.summaries_dir or self.folder,
            extra=self._stamp(),
            **options,
        )
        return model

    def finetune(self, model, *, prepare=None, objective=None, updates=None, normalise=False):
        """Train what `shrink` leaves of a model for --finetune_epochs.

        Args:
            model: the trained network, noise and all.
            prepare: as of `train`.
            objective: `training.Objective`. None: with --weight_decay.
            updates: `training.Updates`. None: Adam at --finetune_learning_rate.
            normalise: with batch normalisation put back in, in --precision; else as it is, in float32.
        Returns:
            The smaller network after that; None if it was not asked for or there is no weight left to train.
        Raises:
            As `train`.
        """
        if not FLAGS.finetune_epochs:
            return None
        with self.strategy.scope():
            if normalise:
                narrow = self.normalised(model)
                smaller = _in_precision(pruning.pad_filters(narrow, arrange.LANES))
            else:
                smaller = _shrink(model)
        if not smaller.trainable_variables:
            print("no unit lives: there is nothing to fine-tune", file=sys.stderr)
            return None
        objective = objective or training.Objective(weight_decay=FLAGS.weight_decay)
        updates = updates or training.Updates(lambda variable: FLAGS.finetune_learning_rate)
        tuned, seconds = training.train(
            smaller,
            self._steps(objective, updates, FLAGS.finetune_epochs, prepare),
            self.strategy,
            self.tuning,
            name=f"{os.path.basename(self.folder)}, fine-tuning",
            summaries_dir=os.path.join(FLAGS.summaries_dir or self.folder, "finetune"),
            extra=self._stamp(),
        )
        self.seconds_before_finetuning = self.seconds
        self.seconds += seconds
        if normalise:
            pruning.copy_unpadded_weights(narrow, tuned)
            tuned = _shrink(narrow)
        return tuned

    def _steps(self, objective, updates, epochs, prepare):
        """From a network to the `training.Step` that trains it."""
        batches = training.Batches(self.train_set, prepare or self.prepare, FLAGS.batch_size, FLAGS.seed, self.strategy)
        return functools.partial(
            training.Step,
            batches=batches,
            objective=objective,
            updates=updates,
            epochs=epochs,
            strategy=self.strategy,
        )

    def finish(self, model, tuned=None, half=False, **figures):
        """Shrink, measure once on the test set, write network.keras and result.json, print the row.

        Args:
            model: the trained network.
            tuned: what `finetune` returned; if not None, the row is its, and the error before it is kept beside it.
            half: network.keras has weights of float16: half the file. The row is of those weights.
            figures: further ones of the method, for result.json.
        Raises:
            UserError: the folder cannot be written.
        """
        if not towers.is_chief(self.strategy):
            return
        smaller, test = _shrink(model), self.test_set()
        logits, masked = (testing.logits(net, test.images, self.prepare) for net in (smaller, model))
        figures["max_logit_difference"] = float(np.abs(logits - masked).max())
        if tuned:
            figures["error_before_finetuning"] = testing.wrong(logits, test.labels)
            figures["seconds_before_finetuning"] = round(self.seconds_before_finetuning, 1)
            smaller, logits = tuned, testing.logits(tuned, test.images, self.prepare)
        if half:
            for weight in smaller.weights:
                weight.assign(np.float16(weight))
            logits = testing.logits(smaller, test.images, self.prepare)
        report.write(self.folder, self._result(smaller, testing.wrong(logits, test.labels), figures), smaller, half)
        self._export()
        self.print_rows()

    def _export(self):
        if FLAGS.export:
            export.export(self.folder, self.examples(), self.error)

    def _result(self, smaller, error, figures):
        """What result.json says of the smaller network."""
        original, macs = self.original(), counting.multiply_adds(smaller)
        return {
            "network": self.network,
            "method": self.method,
            "dataset": FLAGS.dataset,
            "seed": FLAGS.seed,
            "epochs": FLAGS.epochs,
            "error": error,
            "units": self.units(counting.kernels(smaller)),
            "multiply_adds": macs,
            "flops_speedup": counting.multiply_adds(original) / macs if macs else None,
            **timing.speedups(original, smaller),
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

    def print_rows(self):
        """The Original's row and this run's, each below the published one and the paper's."""
        original, found = self.script.rpartition("-")[0], {}
        folders = {original: original_folder(original, self.folder), self.script: self.folder}
        if not (ROOT / "scripts" / f"{original}.py").exists():
            del folders[original]
        for script, own in folders.items():
            for label, folder in (
                ("published", published_folder(script)),
                ("ours, held out" if FLAGS.validate else "ours", own),
            ):
                if result := report.read(folder):
                    found.setdefault(result["method"], {})[label] = [result]
        print(report.text(self.network, FLAGS.dataset, report.rows(self.network, FLAGS.dataset, found)))


def _in_precision(model):
    """The model, its layers but the last in --precision."""
    for layer in model.layers[:-1] if FLAGS.precision == "bfloat16" else []:
        layer.dtype_policy = "mixed_bfloat16"
    return model


def _shrink(model):
    """The smaller network in float32, however the model was trained; the model itself is in float32 from now on."""
    keras.config.set_dtype_policy("float32")
    for layer in model.layers:
        layer.dtype_policy = "float32"
    return pruning.shrink(model)
