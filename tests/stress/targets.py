"""Targets of `prune` on five networks, beside pruning by magnitude and at random: MACs and errors.

python -m tests.stress.targets --directory DIR            # three hours on one core; a repeated call continues
python -m tests.stress.targets --directory DIR --table    # what is there so far, in Markdown

Every network is trained for each seed, and pruned from there. By magnitude or at random, units are removed at once,
down to the same MACs, and what is left is trained for as many epochs as `prune` trains in all, with the same optimizer,
batches and data. A tenth of the training examples is in no training: max_drop is judged on it. $SBP_DATA_DIR has MNIST
and CIFAR-10.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from keras_sbp.nets import NETWORKS
from keras_sbp.utils import pruning
from keras_sbp.utils.io import data, download
from keras_sbp.utils.pruning import counting, fit, graph
from keras_sbp.utils.tool import choice, compact, examples, latency, plan, prune, targets, tasks
from keras_sbp.utils.tool.training import Trainer
from tests.stress.readme_example import run as readme_example

TARGETS, SEEDS = (2, 3, 5, 10), (0, 1, 2)
PACKAGES = ("asyncio", "email", "unittest", "xml", "importlib")


def digits(seed):
    """The README's example, of which the network and the data are taken before it prunes."""
    with contextlib.redirect_stdout(sys.stderr):
        names = readme_example(seed, "# Prune it")
    x, y, x_test, y_test = (names[name] for name in ("x", "y", "x_test", "y_test"))
    return keras.models.clone_model(names["model"]), x, y, x_test, y_test


def images(dataset, count, mean, deviation):
    found = []
    for split, number in (("train", count), ("test", 5000)):
        x, y = data.load(dataset, download.default_directory(), split)
        found += [(x[:number].astype(np.float32) / 255 - mean) / deviation, y[:number]]
    return found


def lenet5(_):
    return NETWORKS["LeNet5"].build(), *images("mnist", 3000, 0.0, 1.0)


def resnet20(_):
    return NETWORKS["ResNet-20"].build(width=0.25), *images("cifar10", 5000, 0.5, 0.25)


def mobilenet(_):
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # of 0.999, the averages would not be those of so short a training
    return model, *images("cifar10", 5000, 0.5, 0.25)


def text(_):
    """Lines of Python's standard library, by the package that they are from."""
    model = keras.Sequential(
        [
            keras.Input((100,), dtype="int32"),
            layers.Embedding(128, 32),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(64, activation="relu"),
            layers.Dense(len(PACKAGES)),
        ]
    )
    x, y = lines_of_code()
    return model, x[:-1500], y[:-1500], x[-1500:], y[-1500:]


def lines_of_code():
    """(N, 100) int32 bytes and (N,) packages, as many lines from each, in random order."""
    found = []
    for package in PACKAGES:
        paths = sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py"))
        every = dict.fromkeys(line.strip() for path in paths for line in path.read_text(errors="ignore").splitlines())
        found.append([line for line in every if line.isascii() and 25 <= len(line) <= 100])
    count = min(1000, *map(len, found))
    chance = np.random.default_rng(0)
    chosen = [chance.permutation(lines)[:count] for lines in found]
    x = np.zeros((len(PACKAGES) * count, 100), np.int32)
    for row, line in zip(x, np.concatenate(chosen)):
        row[: len(line)] = list(line.encode())
    order = chance.permutation(len(x))
    return x[order], np.repeat(np.arange(len(PACKAGES)), count)[order]


class Case(NamedTuple):
    """A network with its data.

    make: returns (model, x, y, x_test, y_test). train_epochs: before pruning. epochs, finetune_epochs: of `prune`,
    fewer than its defaults, so that all of this takes hours and not a day.
    """

    make: Callable
    train_epochs: int
    epochs: int
    finetune_epochs: int
    loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def trained(self, seed):
        """(model, x, y, x_validation, y_validation, x_test, y_test)"""
        model, x, y, x_test, y_test = self.make(seed)
        count = round(0.9 * len(x))
        rate = keras.optimizers.schedules.PolynomialDecay(2e-3, self.train_epochs * -(-count // 64), 0.0)
        model.compile(keras.optimizers.Adam(rate), self.loss)
        model.fit(x[:count], y[:count], 64, self.train_epochs, verbose=0)
        return model, x[:count], y[:count], x[count:], y[count:], x_test, y_test


CASES = {
    "README": Case(digits, 15, 40, 7),
    "LeNet5": Case(lenet5, 10, 20, 4),
    "text": Case(text, 10, 16, 3),
    "ResNet-20": Case(resnet20, 15, 6, 2),
    "MobileNetV2": Case(mobilenet, 15, 6, 2, "sparse_categorical_crossentropy"),
}


class Trial:
    """One network as given, and its data."""

    def __init__(self, name, seed, directory):
        self.model, *arrays = original(name, seed, directory)
        self.pairs = list(zip(arrays[::2], arrays[1::2]))
        self.case, self.seed, self.folder = CASES[name], seed, directory / f"{name}-{seed}"
        self.model.compile("adam", self.case.loss)
        self.parts = examples.Parts(*(examples.part(pair, "data") for pair in self.pairs), ())
        self.task = tasks.of(self.model, self.parts.train)

    def run(self, method, target):
        start = time.monotonic()
        smaller, found = self.prune(method, target) if method in ("SBP", "max_drop") else self.in_order(method, target)
        found["ratio"] = counting.multiply_adds(self.model) / counting.multiply_adds(smaller)
        for name, model in (("before", self.model), ("error", smaller)):
            for part in ("validation", "test"):
                found[f"{name}_{part}"] = 100 - self.task.evaluate(model, getattr(self.parts, part)).value
        return found | {"seconds": round(time.monotonic() - start)}

    def prune(self, method, target):
        train, validation, test = self.pairs
        asked = {"max_drop": target} if method == "max_drop" else {"target": target}
        # The training towards 10 times fewer is also that of max_drop.
        folder = self.folder if method == "max_drop" or target == choice.DROP_PATH else None
        smaller, report = prune.prune(
            self.model, train, validation_data=validation, test_data=test, epochs=self.case.epochs, seed=self.seed,
            finetune_epochs=self.case.finetune_epochs, directory=folder, verbose=0, **asked,
        )  # fmt: skip
        return smaller, {"said": report.warnings, "margin": report.margin}

    def in_order(self, how, target):
        """Prune to a target by an order of the units that needs no training, and train what is left."""
        planned = plan.of(self.parts, self.case.epochs, self.case.finetune_epochs, None, 1e-3, None)
        planned = planned._replace(finetune_epochs=planned.epochs + planned.finetune_epochs)
        noisy = prune.with_noise(self.model, self.parts.train.count, ())
        chance = np.random.default_rng(self.seed)
        scores = magnitudes(noisy)
        if how == "random":
            scores = {name: chance.random(len(score)) for name, score in scores.items()}
        network = compact.trainable(noisy, targets.Ranking(noisy, scores).at(targets.full_macs(noisy) / target))
        Trainer(self.parts, self.task, planned, self.seed, None, 0).without_noise(network)
        return pruning.shrink(network), {}


def magnitudes(noisy):
    """{noise layer's name: L2 norms of its units' filters, over their mean in the layer}; of summands, of all."""
    opened = graph.flatten_nested(noisy)
    maker = {id(tensor): node for node in graph.nodes(opened) for tensor in node.outputs}
    found = {}
    for layer in fit.noise_layers(noisy):
        units, squares, seen = layer.mu.shape[0], 0.0, set()
        waiting = [tensor for node in graph.nodes(opened) if node.operation is layer for tensor in node.input_tensors]
        while waiting:
            node = maker.get(id(waiting.pop()))
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            kernel = getattr(node.operation, "kernel", None)
            if kernel is None or kernel.shape[-1] != units:
                waiting += node.input_tensors
                continue
            squares = squares + np.square(np.reshape(kernel, (-1, units))).sum(0)
        norms = np.sqrt(squares)
        found[layer.name] = norms / norms.mean()
    return found


def not_measured(models, x):
    raise latency.NotMeasured("not part of this")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", choices=list(CASES), help="one network")
    options = parser.parse_args()
    latency.milliseconds = not_measured
    options.directory.mkdir(parents=True, exist_ok=True)
    paths = options.directory.glob("*.jsonl")
    rows = [json.loads(line) for path in sorted(paths) for line in path.read_text().splitlines()]
    if options.table:
        print(table(rows))
        return
    done = {(row["network"], row["seed"], row["method"], row["target"]) for row in rows}
    rounds = [[("SBP", target) for target in TARGETS], [("max_drop", 1.0)]]
    rounds += [[(how, target) for target in TARGETS for how in ("magnitude", "random")]]
    for jobs, seed, name in itertools.product(rounds, SEEDS, [options.only] if options.only else CASES):
        left = [job for job in jobs if (name, seed, *job) not in done]
        if not left:
            continue
        trial = Trial(name, seed, options.directory)
        for method, target in left:
            found = {"network": name, "seed": seed, "method": method, "target": target} | trial.run(method, target)
            print(found, file=sys.stderr, flush=True)
            with open(options.directory / f"{name}.jsonl", "a") as file:
                print(json.dumps(found), file=file)


def original(name, seed, directory):
    """A trained network and its data, which are kept for the next call."""
    path = directory / f"{name}-{seed}.npz"
    if not path.exists():
        keras.utils.set_random_seed(seed)
        found = CASES[name].trained(seed)
        np.savez(path, *found[1:])
        found[0].save(path.with_suffix(".keras"))
        return found
    with np.load(path) as stored:
        return keras.models.load_model(path.with_suffix(".keras"), compile=False), *stored.values()


def table(rows):
    lines = [
        "| network (error as given) | target | reached | error, SBP | magnitude | random |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name in CASES:
        for target in TARGETS:
            found = {
                method: [
                    row for row in rows if (row["network"], row["method"], row["target"]) == (name, method, target)
                ]
                for method in ("SBP", "magnitude", "random")
            }
            if found["SBP"]:
                before = statistics.fmean(row["before_test"] for row in found["SBP"])
                reached = ", ".join(f"{row['ratio']:.2f}" for row in found["SBP"])
                cells = [errors(found[method]) for method in found]
                lines.append(f"| {name} ({before:.2f}) | {target} | {reached} | {' | '.join(cells)} |")
    ratios = [row["ratio"] / row["target"] for row in rows if row["method"] == "SBP"]
    within = [sum(abs(ratio - 1) <= bound for ratio in ratios) for bound in (0.05, 0.15)]
    lines += ["", f"Of {len(ratios)} runs, {within[0]} are within 5 % of the target and {within[1]} within 15 %.", ""]
    lines += ["| max_drop=1 | fewer MACs | points lost on the test data | the report warns |", "|---|---|---|---|"]
    for name in CASES:
        found = [row for row in rows if (row["network"], row["method"]) == (name, "max_drop")]
        if found:
            ratios = ", ".join(f"{row['ratio']:.2f}" for row in found)
            lost = ", ".join(f"{row['error_test'] - row['before_test']:.2f}" for row in found)
            said = ", ".join(
                "yes" if any("more than max_drop" in line for line in row["said"]) else "no" for row in found
            )
            lines.append(f"| {name} | {ratios} | {lost} | {said} |")
    return "\n".join(lines)


def errors(rows):
    return " / ".join(f"{row['error_test']:.2f}" for row in rows) or "-"


if __name__ == "__main__":
    main()
