"""An experiment: one network trained by one method, from the data to its row of the table."""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sbp.nets import Network
from keras_sbp.utils import pruning, training
from keras_sbp.utils.deployment import arrange, timing
from keras_sbp.utils.experiment import finished, row, testing
from keras_sbp.utils.experiment.precision import dtype_policy, in_float32, shrink, use_bfloat16
from keras_sbp.utils.experiment.settings import Script, Settings, check_same, record, stored_record
from keras_sbp.utils.io import checkpoint, data, report, towers
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.io.preprocessing import Preprocess
from keras_sbp.utils.methods import Finetuning, Method, PruningMethod

NUM_EXAMPLES = 500  # training images from which batch normalization is initialized and int8 has its ranges


class Experiment:
    """One network trained by one method. As a context, it locks its directory.

        settings = Settings(dataset="digits", epochs=5, checkpoints_dir="run")
        with Experiment(NETWORKS["LeNet5"], "StructuredBP", settings, StructuredBP()) as run:
            model = run.train(run.build(unit=run.method.unit))
            result = run.finish(model)

    Args:
        network: of nets/.
        name: the method's name in the tables.
        settings: of the run; its checkpoints_dir is needed where there is no script.
        method: with its hyperparameters.
        augment: preprocessing of training images. None: `preprocess`.
        finetuning: of the smaller network. None: there is none.
        preprocess: what the network reads of the images. None: the data set's own.
        script: that runs it, if one does.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        settings: Settings,
        method: Method,
        *,
        augment: Preprocess | None = None,
        finetuning: Finetuning | None = None,
        preprocess: Preprocess | None = None,
        script: Script | None = None,
    ):
        self.network, self.name, self.settings, self.method = network, name, settings, method
        self.preprocess = preprocess or data.DATASETS[settings.dataset].preprocess
        self.augment, self.finetuning, self.script = augment or self.preprocess, finetuning, script
        self.record = record(settings, method, augment, finetuning)
        self._identity = {"network": self.title, "method": name} | self.record
        if not (settings.epochs or settings.checkpoint and finetuning and finetuning.epochs):
            otherwise = "give a checkpoint and finetune_epochs, or more epochs" if finetuning else "give more epochs"
            raise UserError(f"epochs=0 only fine-tunes: {otherwise}")
        if not (settings.checkpoints_dir or script):
            raise UserError("no checkpoints_dir: Settings(checkpoints_dir=...) says where the run goes")
        self.directory = (settings.checkpoints_dir or script.directory()).rstrip("/")
        self.start: str | None = None  # the run or file whose weights this one starts from
        self.seconds: dict[str, float] = {}  # of training, by its stage

    @property
    def title(self) -> str:
        """What the tables call the network."""
        width = self.settings.width
        return self.network.name if width == 1 else f"{self.network.name}, k = {width:g}"

    @functools.cached_property
    def strategy(self) -> tf.distribute.Strategy:
        """The distribution strategy; networks are built in its scope."""
        return towers.strategy(self.settings.num_gpus)

    @functools.cached_property
    def train_set(self) -> data.Images:
        """The training images; with `validate`, less those that are held out."""
        return self._load("train_minus_val" if self.settings.validate else "train")

    def test_set(self) -> data.Images:
        """The test images, read by each call; with `validate`, the images that are held out."""
        return self._load("val" if self.settings.validate else "test")

    def _load(self, split):
        return data.load(self.settings.dataset, self.settings.data_dir, split, self.settings.seed)

    def examples(self) -> np.ndarray:
        """Some training images, as the network reads them."""
        return np.asarray(self.preprocess(self.train_set.images[:NUM_EXAMPLES]))

    def scores(self, model: testing.Predictor) -> dict[str, float]:
        """A network's `testing.scores` on the test set."""
        test = self.test_set()
        return testing.scores(testing.logits(model, test.images, self.preprocess), test.labels)

    def result(self) -> report.Result | None:
        """The result of a finished run; None if it is not finished.

        Raises:
            UserError: its directory holds another run.
        """
        if result := report.read(self.directory):
            check_same(self.directory, result | result["settings"], self._identity)
        return result

    def measure(self, network: keras.Model) -> report.Result:
        """Units, MACs and speed-ups of a network of this run (`row.measure`, `timing.speedups`)."""
        original, speedups = self.original(), timing.OF_ORIGINAL
        if isinstance(self.method, PruningMethod):
            speedups = timing.speedups(original, network, self.settings.timing)
        return row.measure(original, network, self.network.units) | speedups

    def __enter__(self) -> "Experiment":
        """Check that the directory's checkpoints are of this run, lock it, and seed what is random.

        Raises:
            UserError: another process holds the directory, or it holds another run.
        """
        self.train_set  # noqa: B018  missing data is reported before the directory is locked
        for stage in (self.directory, self._finetuning_directory):
            if arrays := checkpoint.latest(stage):
                check_same(self.directory, stored_record(arrays, self.directory), self._identity)
        self._lock = checkpoint.lock_directory(self.directory) if towers.is_chief(self.strategy) else None
        keras.utils.set_random_seed(self.settings.seed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    @property
    def _finetuning_directory(self):
        return os.path.join(self.directory, "finetune")

    def build(self, **layers: Any) -> keras.Model:
        """The network on every tower, with the method's layers in it (as the functions in nets/ take them).

        Raises:
            UserError: the data set has images of another shape.
        """
        with self.strategy.scope(), dtype_policy(self.settings.precision):
            model = self.original(**layers)
        expected, found = model.inputs[0].shape[1:], self.train_set.images.shape[1:]
        if expected != found:
            raise UserError(
                f"{self.title} reads images of {expected}, and those of --dataset={self.settings.dataset} are {found}: "
                "choose another data set"
            )
        return model

    def original(self, **layers: Any) -> keras.Model:
        """The unpruned network, untrained."""
        return self.network.build(width=self.settings.width, **layers)

    def insert_batch_norm(self, model: keras.Model) -> keras.Model:
        """What `shrink` leaves of a model, with batch normalization inserted again, in the run's precision."""
        with self.strategy.scope(), dtype_policy(self.settings.precision):
            model = pruning.insert_batch_norm(shrink(model), self.examples())
        return self._in_precision(model)

    def _in_precision(self, model):
        if self.settings.precision == "bfloat16":
            use_bfloat16(model)
        return model

    def train(
        self, model: keras.Model, measure: Callable[[keras.Model], dict[str, float]] = lambda model: {}
    ) -> keras.Model:
        """Train the model to the last epoch, from the last checkpoint if there is one.

        Args:
            measure: further metrics of the model for its summaries, at the end of every epoch.
        Returns:
            The trained model, without the units that `shrink_every` removed.
        Raises:
            UserError: the machines have other flags, or as `training.train`.
            SystemExit: as `training.train`.
        """
        if not self.settings.epochs:
            if self.method.live_units(model):
                raise UserError("epochs=0 only fine-tunes, and this network has to be trained first: give more epochs")
            return model
        self._teacher(model)  # what is wrong with it is said before hours of training
        return self._train(model, self.method, self.settings.epochs, self.directory, measure=measure)

    def finetune(self, model: keras.Model) -> keras.Model | None:
        """Fine-tune what `shrink` leaves of a trained model.

        Returns:
            The smaller network after that; None if no fine-tuning was asked for, or there is nothing left to train.
        Raises:
            As `train`.
        """
        method = self.finetuning
        if not (method and method.epochs):
            return None
        if method.inserts_batch_norm:
            unpadded = self.insert_batch_norm(model)
            with self.strategy.scope(), dtype_policy(self.settings.precision):
                smaller = self._in_precision(pruning.pad_filters(unpadded, arrange.LANES))
        else:
            with self.strategy.scope():
                smaller = shrink(model)
        if not smaller.trainable_variables:
            print("no unit is live: there is nothing to fine-tune", file=sys.stderr)
            return None
        tuned = self._train(smaller, method, method.epochs, self._finetuning_directory, self._teacher(smaller))
        if method.inserts_batch_norm:
            pruning.copy_unpadded_weights(unpadded, tuned)
            tuned = shrink(unpadded)
        return tuned

    def _teacher(self, model):
        path = self.finetuning and self.finetuning.teacher
        with self.strategy.scope():
            return finished.load_teacher(path, self.settings, model) if path else None

    def _train(self, model, method, epochs, directory, teacher=None, **options):
        message = "the flags are not the same on all machines: start the same command on each"
        towers.check_equal_across_workers(self.strategy, self._identity, message)
        stage = os.path.relpath(directory, self.directory)
        batches = training.Batches(
            self.train_set, self.augment, self.settings.batch_size, self.settings.seed, self.strategy
        )
        make_step = functools.partial(
            training.Step,
            batches=batches,
            objective=dataclasses.replace(method.objective(model), teacher=teacher),
            updates=method.updates(model, len(self.train_set.labels)),
            epochs=epochs,
            strategy=self.strategy,
        )
        with dtype_policy(self.settings.precision):
            model, self.seconds[stage] = training.train(
                model,
                make_step,
                self.strategy,
                directory,
                name=os.path.basename(self.directory) + ("" if stage == "." else ", fine-tuning"),
                live_units=method.live_units,
                after_epoch=method.after_epoch,
                shrink_every=method.shrink_every,
                summaries_dir=os.path.normpath(os.path.join(self.settings.summaries_dir or self.directory, stage)),
                extra={"settings": np.array(json.dumps(self._identity)), "start": np.array(self.start or "")},
                **options,
            )
        return model

    def finish(
        self, model: keras.Model, tuned: keras.Model | None = None, half: bool = False, **metrics: float
    ) -> report.Result:
        """Shrink the model, measure it once on the test set, and write network.keras and result.json.

        Args:
            model: as `train` returns it.
            tuned: as `finetune` returns it; if there is one, it is the row, with the error before it beside.
            half: store network.keras in float16. The row is of those weights.
            metrics: further ones of the method, for result.json.
        Raises:
            UserError: the directory cannot be written.
        """
        if not towers.is_chief(self.strategy):
            return {}
        smaller, test = shrink(model), self.test_set()
        with in_float32(model):
            logits, masked = (testing.logits(net, test.images, self.preprocess) for net in (smaller, model))
        metrics["max_logit_difference"] = float(np.abs(logits - masked).max())
        if tuned:
            metrics["error_before_finetuning"] = testing.error_rate(logits, test.labels)
            metrics["seconds_before_finetuning"] = round(self.seconds.get(".", 0.0), 1)
            smaller = tuned
        for weight in smaller.weights if half else []:
            weight.assign(np.float16(weight))
        if tuned or half:
            logits = testing.logits(smaller, test.images, self.preprocess)
        result = {
            "network": self.title,
            "method": self.name,
            "dataset": self.settings.dataset,
            "seed": self.settings.seed,
            "epochs": self.settings.epochs,
            **testing.scores(logits, test.labels),
            **self.measure(smaller),
            **metrics,
            "seconds": round(sum(self.seconds.values()), 1),
            **row.provenance(),
            "settings": self.record,
        }
        report.write(self.directory, result, smaller, half)
        return result
