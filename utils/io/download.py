"""The files of the data sets: downloaded where they are missing, checked, and read."""

import contextlib
import gzip
import hashlib
import io
import os
import sys
import tarfile
import tempfile
import zlib

from keras_sbp.lazy import keras
from keras_sbp.utils.io.command_line import UserError

MAX_FILE_SIZE = 48_000_000  # bytes; MNIST's training images, the largest file, have 47,040,016
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
DOWNLOAD_MD5 = MD5 | {  # of packed files, where what is downloaded is packed
    "mnist/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "mnist/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "mnist/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "mnist/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    f"{CIFAR10}/{CIFAR10_ARCHIVE}": "c58f30108f718f92721af3b95e74349a",
}


def default_directory() -> str:
    """$SBP_DATA_DIR, or a directory of ours in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("SBP_DATA_DIR") or os.path.join(cache, "structured-bayesian-pruning")


def read(data_dir: str, name: str) -> bytes:
    """The content of a data file, unpacked and checked; never more than MAX_FILE_SIZE bytes of it.

    Raises:
        UserError: the file cannot be downloaded or read, or is not the published one.
    """
    path = os.path.join(data_dir, name)
    if not os.path.exists(path):
        _download(data_dir, name)
    try:
        if not os.path.isfile(path):
            raise OSError("it is not a file")
        with open(path, "rb") as file:
            packed = content = file.read(MAX_FILE_SIZE)
        if name.endswith(".gz"):
            content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(MAX_FILE_SIZE)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): delete it, and it is downloaded again") from None
    if MD5[name] not in (hashlib.md5(packed).hexdigest(), hashlib.md5(content).hexdigest()):
        raise UserError(f"{path} is not the published file (MD5 {MD5[name]}): delete it, and it is downloaded again")
    return content


def _download(data_dir, name):
    """Download a missing file atomically; of CIFAR-10, every missing file."""
    path = os.path.join(data_dir, name)
    directory, file = os.path.split(name)
    source = CIFAR10_ARCHIVE if directory == CIFAR10 else file
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as temporary,
            contextlib.redirect_stdout(sys.stderr),
        ):
            part = keras.utils.get_file(
                source,
                HOMES[directory] + source,
                cache_dir=temporary,
                cache_subdir="",
                file_hash=DOWNLOAD_MD5[f"{directory}/{source}"],
            )
            if source == file:
                os.replace(part, path)
            else:
                _extract_batches(part, data_dir)
    except Exception as error:  # get_file raises nothing more specific
        raise UserError(
            f"{path} is missing and could not be downloaded ({' '.join(str(error).split())}): put it there yourself"
            + ", or use --dataset=digits, real digits that need no download" * ("mnist" in directory)
        ) from error


def _extract_batches(archive, data_dir):
    """Copy the members that we know: whatever else an archive holds touches no disk."""
    with tarfile.open(archive) as members:
        for name in MD5:
            path = os.path.join(data_dir, name)
            if name.startswith(CIFAR10) and not os.path.exists(path):
                part = os.path.join(os.path.dirname(archive), os.path.basename(name))
                with open(part, "wb") as file:
                    file.write(members.extractfile(name).read(MAX_FILE_SIZE))
                os.replace(part, path)
