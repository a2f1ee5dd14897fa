"""The data sets: read, checked and split. Missing files are downloaded from their public homes.

A data directory holds mnist/*-ubyte.gz, fashion_mnist/*-ubyte.gz and cifar-10-batches-py/*.
"""

import io
import os
import pickle
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_sbp.utils.io import download, preprocessing
from keras_sbp.utils.io.command_line import UserError

SPLITS = ("train", "test", "train_minus_val", "val")
NUM_CLASSES = 10


class Images(NamedTuple):
    """images: (N, height, width, channels) uint8. labels: (N,) int32, from 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """What a data set is called, how it is read, and what networks read of it.

    Attributes:
        title: its name in tables.
        read: of the data directory and whether the test set is wanted, its images and labels.
        preprocess: from uint8 images to a network's input.
        num_val: how many training images `train_minus_val` leaves out, the last ones; they are `val`.
    """

    title: str
    read: Callable[[str, bool], tuple[np.ndarray, np.ndarray]]
    preprocess: preprocessing.Preprocess
    num_val: int


def load(dataset: str, data_dir: str, split: str, seed: int = 0) -> Images:
    """Read one split of a data set, and no file of another split.

    Args:
        dataset: a name of DATASETS. The labels of one whose name ends in "-random" are a function of the seed and the
            split alone, so that no network can have less than 90 % error on its test split.
        data_dir: the data directory.
        split: "train" or "test", the data set's own; or "train_minus_val" and "val", the two parts of "train" on which
            hyperparameters are chosen.
        seed: of random labels.
    Raises:
        UserError: the name is unknown, or a file cannot be downloaded or read or is not the published one.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    is_test, record = split == "test", DATASETS[dataset]
    images, labels = record.read(os.path.expanduser(data_dir), is_test)
    if dataset.endswith("-random"):
        # Training and test labels are separate streams.
        stream = np.random.Generator(np.random.PCG64([seed, int(is_test)]))
        labels = stream.integers(NUM_CLASSES, size=len(labels))
    if split == "train_minus_val":
        images, labels = images[: -record.num_val], labels[: -record.num_val]
    elif split == "val":
        images, labels = images[-record.num_val :], labels[-record.num_val :]
    return Images(images, labels.astype(np.int32))


def _read_mnist(data_dir, is_test, name="mnist"):
    prefix = f"{name}/t10k" if is_test else f"{name}/train"
    images, labels = (download.read(data_dir, f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    count = max(len(labels) - 8, 0)
    # What an IDX file's header claims: its kind, how many items, and their size.
    headers = struct.pack(">4I", 0x803, count, 28, 28), struct.pack(">2I", 0x801, count)
    matches = (images[:16], labels[:8]) == headers and len(images) == 16 + 784 * count
    if not matches or max(labels[8:], default=0) >= NUM_CLASSES:
        raise UserError(f"images and labels in {os.path.join(data_dir, name)} do not match: delete them")
    images, labels = np.frombuffer(images, np.uint8, offset=16), np.frombuffer(labels, np.uint8, offset=8)
    return images.reshape(-1, 28, 28, 1), labels


def _read_fashion_mnist(data_dir, is_test):
    return _read_mnist(data_dir, is_test, "fashion_mnist")


def _read_cifar10(data_dir, is_test):
    images, labels = [], []
    for name in ["test_batch"] if is_test else [f"data_batch_{i}" for i in range(1, 6)]:
        content = download.read(data_dir, f"{download.CIFAR10}/{name}")
        try:
            batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
            rows, classes = batch[b"data"], batch[b"labels"]
            is_valid = rows.shape == (len(classes), 3072) and rows.dtype == np.uint8
            if not is_valid or not set(classes) <= set(range(NUM_CLASSES)):
                raise ValueError("its images and labels do not match")
        except Exception as error:  # whatever a pickle makes Python raise
            path = os.path.join(data_dir, download.CIFAR10, name)
            raise UserError(f"{path} is not safe to read ({error}): delete it") from None
        images.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += classes
    return np.ascontiguousarray(np.concatenate(images)), np.array(labels)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain values only: a pickle may otherwise call any function it names."""

    NAMES = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.NAMES[module, name]


def _read_digits(data_dir, is_test):
    """scikit-learn's 1,797 digits of 8x8, resized to MNIST's form: 20x20 within 28x28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Bilinear: row i of `weights` says where the center of pixel i of 20 lies between the 8.
    centers = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - abs(centers[:, None] - np.arange(8)))
    images = np.rint(weights @ (digits.images * 255 / 16) @ weights.T).astype(np.uint8)
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))[..., None]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    chosen = order[1500:] if is_test else order[:1500]
    return images[chosen], digits.target[chosen]


_MNIST = Dataset("MNIST", _read_mnist, preprocessing.scale, num_val=10_000)
_CIFAR10 = Dataset("CIFAR-10", _read_cifar10, preprocessing.standardize, num_val=10_000)
_DIGITS = Dataset("digits", _read_digits, preprocessing.scale, num_val=250)

DATASETS = {
    "mnist": _MNIST,
    "fashion_mnist": Dataset("Fashion-MNIST", _read_fashion_mnist, preprocessing.scale, num_val=10_000),
    "cifar10": _CIFAR10,
    "mnist-random": _MNIST._replace(title="MNIST, random labels"),
    "cifar10-random": _CIFAR10._replace(title="CIFAR-10, random labels"),
    "digits": _DIGITS,
    "digits-random": _DIGITS._replace(title="digits, random labels"),
}
