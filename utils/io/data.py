"""The data sets: read, checked and divided. A missing file is downloaded from its public home.

A data folder holds mnist/*-ubyte.gz, fashion_mnist/*-ubyte.gz and cifar-10-batches-py/*.
"""

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import zlib
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from keras_sbp.utils.io.command_line import UserError

DATASETS = ("mnist", "fashion_mnist", "cifar10", "mnist-random", "cifar10-random", "digits", "digits-random")
SPLITS = ("train", "test", "fit", "held_out")
CLASSES = 10
HELD_OUT = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 10_000, "digits": 250}

LARGEST_FILE = 48_000_000  # bytes; MNIST's training images, the largest, are 47,040,016
CIFAR10 = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
HOMES = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    CIFAR10: "https://www.cs.toronto.edu/~kriz/",
}
# MNIST's are of the unpacked files: good copies of it differ in how they were packed.
MD5 = {
    "mnist/train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "mnist/train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "mnist/t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "mnist/t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    "fashion_mnist/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "fashion_mnist/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "fashion_mnist/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "fashion_mnist/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    f"{CIFAR10}/data_batch_1": "c99cafc152244af753f735de768cd75f",
    f"{CIFAR10}/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    f"{CIFAR10}/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    f"{CIFAR10}/data_batch_4": "634d18415352ddfa80567beed471001a",
    f"{CIFAR10}/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    f"{CIFAR10}/test_batch": "40351d587109b95175f43aff81a1287e",
}
DOWNLOAD_MD5 = MD5 | {  # where what is downloaded is packed
    "mnist/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "mnist/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "mnist/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "mnist/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    f"{CIFAR10}/{CIFAR10_ARCHIVE}": "c58f30108f718f92721af3b95e74349a",
}


class Images(NamedTuple):
    """images: (N, 28, 28, 1) or (N, 32, 32, 3) uint8. labels: (N,) int32, 0..9."""

    images: np.ndarray
    labels: np.ndarray


def define_folder():
    """The flag of the folder that holds the data."""
    flags.DEFINE_string(
        "data_dir", default_data_dir(), "Where the data is or is downloaded to; $SBP_DATA_DIR does the same."
    )


def default_data_dir():
    """$SBP_DATA_DIR, or a folder of ours in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("SBP_DATA_DIR") or os.path.join(cache, "structured-bayesian-pruning")


def load(dataset: str, data_dir: str, split: str, seed: int = 0) -> Images:
    """Read one split of a data set, and no file of another split.

    dataset: one of DATASETS. The labels of a "-random" one are a function of `seed` alone, so that
        no network can do better than 90 % error on its test split.
    split: "train" or "test", the data set's own; or "fit" and "held_out", the two parts of "train"
        between which choices are made: the last 10,000 images (digits: 250) are held out.

    Raises UserError for an unknown name, and for a file that cannot be downloaded or read or is not
    what was published.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r}: choose one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    source, _, random_labels = dataset.partition("-")
    testing = split == "test"

    if source == "digits":
        images, labels = _digits(testing)
    elif source == "cifar10":
        images, labels = _cifar10(os.path.expanduser(data_dir), testing)
    else:
        images, labels = _mnist(os.path.expanduser(data_dir), source, testing)

    if random_labels:
        # A stream a split.
        stream = np.random.Generator(np.random.PCG64([seed, int(testing)]))
        labels = stream.integers(CLASSES, size=len(labels))
    if split == "fit":
        images, labels = images[: -HELD_OUT[source]], labels[: -HELD_OUT[source]]
    elif split == "held_out":
        images, labels = images[-HELD_OUT[source] :], labels[-HELD_OUT[source] :]
    return Images(images, labels.astype(np.int32))


def _mnist(data_dir, folder, testing):
    prefix = f"{folder}/t10k" if testing else f"{folder}/train"
    images, labels = (_read(data_dir, f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    count = max(len(labels) - 8, 0)
    # What an IDX file's header claims: its kind, how many, and of what size.
    heads = struct.pack(">4I", 0x803, count, 28, 28), struct.pack(">2I", 0x801, count)
    if (images[:16], labels[:8]) != heads or len(images) != 16 + 784 * count or max(labels[8:], default=0) >= CLASSES:
        raise UserError(f"{os.path.join(data_dir, folder)} holds images and labels that do not match: remove them")
    images, labels = np.frombuffer(images, np.uint8, offset=16), np.frombuffer(labels, np.uint8, offset=8)
    return images.reshape(-1, 28, 28, 1), labels


def _cifar10(data_dir, testing):
    images, labels = [], []
    for name in ["test_batch"] if testing else [f"data_batch_{i}" for i in range(1, 6)]:
        content = _read(data_dir, f"{CIFAR10}/{name}")
        try:
            batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
            rows, classes = batch[b"data"], batch[b"labels"]
            if rows.shape != (len(classes), 3072) or rows.dtype != np.uint8 or not set(classes) <= set(range(CLASSES)):
                raise ValueError("its rows and labels do not match")
        except Exception as error:  # whatever a pickle makes Python raise
            path = os.path.join(data_dir, CIFAR10, name)
            raise UserError(f"{path} is not safe to read ({error}): remove it") from None
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


def _digits(testing):
    """scikit-learn's 1,797 digits of 8x8, brought to MNIST's form: 20x20 within 28x28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Bilinear: row i of `weights` says where the centre of pixel i of 20 lies between the old 8.
    centres = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - abs(centres[:, None] - np.arange(8)))
    images = np.rint(weights @ (digits.images * 255 / 16) @ weights.T).astype(np.uint8)
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))[..., None]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    chosen = order[1500:] if testing else order[:1500]
    return images[chosen], digits.target[chosen]


def _read(data_dir, name):
    """The bytes of a data file, unpacked and checked; never more than LARGEST_FILE of them."""
    path = os.path.join(data_dir, name)
    if not os.path.exists(path):
        _download(data_dir, name)
    try:
        if not os.path.isfile(path):
            raise OSError("it is no file")
        with open(path, "rb") as file:
            packed = content = file.read(LARGEST_FILE)
        if name.endswith(".gz"):
            content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(LARGEST_FILE)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): repair it, or remove it and it is downloaded again") from None
    if MD5[name] not in (hashlib.md5(packed).hexdigest(), hashlib.md5(content).hexdigest()):
        raise UserError(f"{path} is not the published file (MD5 {MD5[name]}): remove it and it is downloaded again")
    return content


def _download(data_dir, name):
    """Put a missing file in its place, whole or not at all; of CIFAR-10, every file it lacks."""
    path = os.path.join(data_dir, name)
    folder, file = os.path.split(name)
    source = CIFAR10_ARCHIVE if folder == CIFAR10 else file
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as temporary,
            contextlib.redirect_stdout(sys.stderr),
        ):
            part = keras.utils.get_file(
                source,
                HOMES[folder] + source,
                cache_dir=temporary,
                cache_subdir="",
                file_hash=DOWNLOAD_MD5[f"{folder}/{source}"],
            )
            if source == file:
                os.replace(part, path)
            else:
                _take_batches(part, data_dir)
    except Exception as error:  # get_file raises nothing more special
        raise UserError(
            f"{path} is missing and could not be downloaded"
            f" ({' '.join(str(error).split())}): put it there yourself, or use"
            " --dataset=digits, real digits that need no download"
        ) from error


def _take_batches(archive, data_dir):
    """Copy the bytes of the members we know: whatever else an archive holds touches no disk."""
    with tarfile.open(archive) as members:
        for name in MD5:
            path = os.path.join(data_dir, name)
            if name.startswith(CIFAR10) and not os.path.exists(path):
                part = os.path.join(os.path.dirname(archive), os.path.basename(name))
                with open(part, "wb") as file:
                    file.write(members.extractfile(name).read(LARGEST_FILE))
                os.replace(part, path)


def scaled(images, seed=None):
    """Pixels from uint8 to float32 in [0, 1]: what the LeNets read. Nothing is drawn: `seed` is there for training."""
    return tf.cast(images, tf.float32) / 255


def standardised(images, seed=None):
    """Each image's pixels with mean 0 and variance 1, float32: what VGG-like reads. `seed` as of `scaled`."""
    return tf.image.per_image_standardization(images)


# {the shape of a data set's images: what the networks read of them}
PREPARE = {(28, 28, 1): scaled, (32, 32, 3): standardised}


def shifted(images, seed, pixels):
    """`scaled`, then moved at random by up to so many pixels up or down and left or right; 0 comes in behind.

    Args:
        images: (batch, height, width, colors) uint8.
        seed: (2,) int32; the same seed moves the same way.
        pixels: int >= 0.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    top, left = tf.unstack(tf.random.stateless_uniform((2, count, 1), seed, 0, 2 * pixels + 1, tf.int32))
    padded = tf.pad(scaled(images), [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]])
    return _taken(padded, top + tf.range(height), left + tf.range(width))


def augmented(images, seed, cutout=0):
    """`standardised`, then a random crop of the image padded by 4, and, at even odds, a flip from left to right.

    Args:
        images: (batch, height, width, colors) uint8.
        seed: (2,) int32; the same seed crops, flips and cuts the same way.
        cutout: the side of a square in pixels that is set to 0, anywhere in the image: DeVries and Taylor, 2017.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform((3, count, 1), seed) * tf.constant([9.0, 9.0, 2.0])[:, None, None]
    top, left, flip = tf.unstack(tf.cast(draws, tf.int32))
    rows, columns = top + tf.range(height), left + tf.where(flip == 1, tf.range(width)[::-1], tf.range(width))
    padded = tf.pad(standardised(images), [[0, 0], [4, 4], [4, 4], [0, 0]])
    cropped = _taken(padded, rows, columns)
    if not cutout:
        return cropped
    sides = tf.constant([height - cutout + 1.0, width - cutout + 1.0])[:, None, None]
    corners = tf.random.stateless_uniform((2, count, 1), tf.random.experimental.stateless_fold_in(seed, 1)) * sides
    first_row, first_column = tf.unstack(tf.cast(corners, tf.int32))
    rows, columns = tf.range(height) - first_row, tf.range(width) - first_column
    cut = ((rows >= 0) & (rows < cutout))[:, :, None] & ((columns >= 0) & (columns < cutout))[:, None, :]
    return tf.where(cut[..., None], 0.0, cropped)


def _taken(images, rows, columns):
    """Of each image the rows and columns, (batch, height) and (batch, width) int32, that are its own."""
    return tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
