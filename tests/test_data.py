"""The data sets, on files made by hand here; on the real ones too if $SBP_DATA_DIR is set."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sbp.utils.io import data, download
from keras_sbp.utils.io.command_line import UserError

CIFAR10 = "cifar-10-batches-py"
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def md5(blob):
    return hashlib.md5(blob).hexdigest()


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def image(index):
    """Tells its index, its rows and its columns apart."""
    return np.uint8((np.arange(28)[:, None] * 5 + np.arange(28) * 3 + index) % 256)


def python2_pickle(pixels, labels):
    """A batch as Python 2 wrote it, opcode by opcode: {"data": uint8 array, "labels": list}."""

    def text(string):
        return b"U" + bytes([len(string)]) + string.encode()

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text("b") + b"tR"
        b"(K\x01M" + struct.pack("<H", len(pixels)) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR"
        b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    )
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text("labels") + listed + b"u."


@pytest.fixture
def put(tmp_path, monkeypatch):
    """put(name, blob): lay a file down as if it were the published one."""

    def put(name, blob, known=None):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(blob)
        monkeypatch.setitem(download.MD5, name, known or md5(blob))
        return path

    return put


@pytest.fixture
def mnist(put):
    """Three training images and two for testing: their labels and the folder's MNIST paths."""
    for part, labels in ("train", [7, 0, 9]), ("t10k", [4, 1]):
        images = np.stack([image(label) for label in labels])
        labels = np.array(labels, np.uint8)
        for kind, array in ("images-idx3", images), ("labels-idx1", labels):
            put(f"mnist/{part}-{kind}-ubyte.gz", gzip.compress(idx(array)), known=md5(idx(array)))


def fails(dataset, data_dir, split="train"):
    """The one line that `load` refuses with."""
    with pytest.raises(UserError) as caught:
        data.load(dataset, str(data_dir), split)
    line = str(caught.value)
    assert line and "\n" not in line
    return line


# Reading


def test_idx_files_are_read_as_published(mnist, tmp_path):
    images, labels = data.load("mnist", str(tmp_path), "train")
    assert images.shape == (3, 28, 28, 1) and images.dtype == np.uint8
    assert labels.tolist() == [7, 0, 9] and labels.dtype == np.int32
    np.testing.assert_array_equal(images[..., 0], [image(7), image(0), image(9)])
    assert data.load("mnist", str(tmp_path), "test").labels.tolist() == [4, 1]


def test_a_repacked_mnist_is_still_mnist(mnist, tmp_path):
    path = tmp_path / "mnist/train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    assert data.load("mnist", str(tmp_path), "train").labels.tolist() == [7, 0, 9]


def test_fashion_mnist_is_known_by_its_packed_files(put, tmp_path):
    put("fashion_mnist/t10k-images-idx3-ubyte.gz", gzip.compress(idx(image(3)[None])))
    put("fashion_mnist/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(np.uint8([3]))))
    images, labels = data.load("fashion_mnist", str(tmp_path), "test")
    np.testing.assert_array_equal(images[0, :, :, 0], image(3))
    assert labels.tolist() == [3]


def test_cifar10_rows_become_images(put, tmp_path):
    for number, name in enumerate(BATCHES):
        rows = np.random.default_rng(number).integers(256, size=(2, 3072), dtype=np.uint8)
        put(f"{CIFAR10}/{name}", python2_pickle(rows, [number, 9 - number]))
    images, labels = data.load("cifar10", str(tmp_path), "test")
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    assert labels.tolist() == [5, 4] and labels.dtype == np.int32
    for row, column, channel in (0, 0, 0), (3, 17, 1), (31, 30, 2):
        assert images[1, row, column, channel] == rows[1, 1024 * channel + 32 * row + column]
    images, labels = data.load("cifar10", str(tmp_path), "train")
    assert len(images) == 10 and labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]


@pytest.mark.parametrize("split", ["train", "train_minus_val", "val"])
def test_training_reads_no_test_file(put, tmp_path, monkeypatch, split):
    monkeypatch.setitem(data.DATASETS, "mnist", data.DATASETS["mnist"]._replace(num_val=1))
    monkeypatch.setitem(data.DATASETS, "cifar10", data.DATASETS["cifar10"]._replace(num_val=1))
    for kind, array in ("images-idx3", image(1)[None]), ("labels-idx1", np.uint8([1])):
        put(f"mnist/train-{kind}-ubyte.gz", gzip.compress(idx(array)), known=md5(idx(array)))
        (tmp_path / f"mnist/t10k-{kind}-ubyte.gz").mkdir()  # opening it would be an error
    for name in BATCHES[:5]:
        put(f"{CIFAR10}/{name}", python2_pickle(np.zeros((1, 3072), np.uint8), [1]))
    (tmp_path / CIFAR10 / "test_batch").mkdir()
    data.load("mnist", str(tmp_path), split)
    data.load("cifar10", str(tmp_path), split)


def test_the_last_ten_thousand_training_images_are_held_out(put, tmp_path):
    labels = np.arange(60_000) % 10
    images = np.zeros((60_000, 28, 28), np.uint8)
    images[:, 0, :2] = np.arange(60_000, dtype=">u2")[:, None].view(np.uint8)
    put("mnist/train-images-idx3-ubyte.gz", gzip.compress(idx(images), compresslevel=0))
    put("mnist/train-labels-idx1-ubyte.gz", gzip.compress(idx(labels.astype(np.uint8))))
    fit, held_out = (data.load("mnist", str(tmp_path), split) for split in ("train_minus_val", "val"))
    index = [np.ascontiguousarray(part.images[:, 0, :2, 0]).view(">u2")[:, 0] for part in (fit, held_out)]
    np.testing.assert_array_equal(index[0], np.arange(50_000))
    np.testing.assert_array_equal(index[1], np.arange(50_000, 60_000))
    np.testing.assert_array_equal(np.concatenate([fit.labels, held_out.labels]), labels)


# Labels at random


@pytest.fixture
def many(put):
    """5,000 images of nothing in both of MNIST's splits, all labelled 3."""
    for part in "train", "t10k":
        put(
            f"mnist/{part}-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros((5000, 28, 28), np.uint8)), compresslevel=1),
        )
        put(f"mnist/{part}-labels-idx1-ubyte.gz", gzip.compress(idx(np.full(5000, 3, np.uint8))))


def test_random_labels_are_uniform_and_of_the_seed_alone(many, tmp_path):
    def labels(split, seed):
        return data.load("mnist-random", str(tmp_path), split, seed).labels

    drawn = [labels(split, seed) for split in ("train", "test") for seed in (0, 1, 2**31 - 1)]
    for one in drawn:
        assert one.dtype == np.int32 and one.shape == (5000,)
        counts = np.bincount(one, minlength=10)
        # chi squared with 9 degrees of freedom is above 33.7 once in 10,000
        assert len(counts) == 10 and ((counts - 500) ** 2 / 500).sum() < 33.7
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs((one == other).mean() - 0.1) < 0.03
    np.testing.assert_array_equal(labels("train", 1), drawn[1])
    assert (data.load("mnist", str(tmp_path), "train").labels == 3).all()


def test_random_labels_are_divided_like_the_images(many, tmp_path, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "mnist-random", data.DATASETS["mnist-random"]._replace(num_val=1000))
    train, fit, held_out = (
        data.load("mnist-random", str(tmp_path), split, 5).labels for split in ("train", "train_minus_val", "val")
    )
    assert len(held_out) == 1000
    np.testing.assert_array_equal(np.concatenate([fit, held_out]), train)


# Files that are not what they should be

LABELS = "mnist/train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: blob[:-9],
        lambda blob: blob[:5],
        lambda blob: b"",
        lambda blob: b"<html>Not found</html>",
        lambda blob: blob[:20] + bytes([blob[20] ^ 1]) + blob[21:],
        lambda blob: gzip.compress(gzip.decompress(blob) + b"\0"),
        lambda blob: gzip.compress(gzip.decompress(blob)[:-1]),
        lambda blob: blob + blob,
    ],
    ids=["truncated", "header", "empty", "html", "altered", "longer", "shorter", "twice"],
)
def test_a_damaged_file_is_one_line(mnist, tmp_path, damage):
    path = tmp_path / LABELS
    path.write_bytes(damage(path.read_bytes()))
    line = fails("mnist", tmp_path)
    assert str(path) in line and "delete it" in line
    fails("mnist-random", tmp_path)


def test_a_bomb_is_not_unpacked(mnist, tmp_path, monkeypatch):
    path = tmp_path / LABELS
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(2**20)
    path.write_bytes(b"".join(packer.compress(megabyte) for _ in range(200)) + packer.flush())
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    assert str(path) in fails("mnist", tmp_path)
    assert asked and all(0 < size < 50_000_000 for size in asked)


def test_a_folder_in_a_file_s_place_is_one_line(mnist, tmp_path):
    (tmp_path / LABELS).unlink()
    (tmp_path / LABELS).mkdir()
    assert str(tmp_path / LABELS) in fails("mnist", tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b".", lambda b: b"\x80\x02N."])
def test_a_damaged_batch_is_one_line(put, tmp_path, damage):
    blob = python2_pickle(np.zeros((1, 3072), np.uint8), [1])
    path = put(f"{CIFAR10}/test_batch", damage(blob), known=md5(blob))
    assert str(path) in fails("cifar10", tmp_path, "test")


@given(st.data())
@settings(max_examples=150)
def test_whatever_is_done_to_a_file_is_one_line(tmp_path_factory, draw):
    good = gzip.compress(idx(np.uint8([7, 0, 9] * 5)), mtime=0)
    position = st.integers(0, len(good))
    start, end = sorted([draw.draw(position), draw.draw(position)])
    bad = good[:start] + draw.draw(st.binary(max_size=30)) + good[end:]
    folder = tmp_path_factory.mktemp("data")
    (folder / "fashion_mnist").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for kind, blob in ("images-idx3", gzip.compress(idx(np.stack([image(1)] * 15)))), ("labels-idx1", bad):
            name = f"fashion_mnist/train-{kind}-ubyte.gz"
            (folder / name).write_bytes(blob)
            patch.setitem(download.MD5, name, md5(good if blob is bad else blob))
        if bad == good:
            data.load("fashion_mnist", str(folder), "train")
        else:
            assert name in fails("fashion_mnist", folder)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_read_without_being_run(put, tmp_path, protocol):
    target = tmp_path / "it ran"
    blob = pickle.dumps(Malicious(str(target)), protocol)
    path = put(f"{CIFAR10}/test_batch", blob)
    line = fails("cifar10", tmp_path, "test")
    assert str(path) in line and "mkdir" in line
    assert not target.exists()


def test_unknown_names(tmp_path):
    line = fails("imagenet", tmp_path)
    assert "imagenet" in line and all(name in line for name in data.DATASETS)
    assert "validation" in fails("mnist", tmp_path, "validation")
    assert not any(tmp_path.iterdir())


# Downloads, from a folder beside


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    for folder in download.HOMES:
        monkeypatch.setitem(download.HOMES, folder, home.as_uri() + "/")
    return home


def publish(monkeypatch, home, folder, file, blob, content):
    (home / file).write_bytes(blob)
    monkeypatch.setitem(download.DOWNLOAD_MD5, f"{folder}/{file}", md5(blob))
    monkeypatch.setitem(download.MD5, f"{folder}/{file}", md5(content))


def test_missing_files_are_downloaded_once(home, tmp_path, monkeypatch, capfd):
    for kind, array in ("images-idx3", image(6)[None]), ("labels-idx1", np.uint8([6])):
        publish(monkeypatch, home, "mnist", f"t10k-{kind}-ubyte.gz", gzip.compress(idx(array)), idx(array))
    data_dir = tmp_path / "not yet" / "there"
    first = data.load("mnist", str(data_dir), "test")
    assert first.labels.tolist() == [6]
    out, err = capfd.readouterr()
    assert out == "" and "Downloading" in err
    assert sorted(os.listdir(data_dir)) == ["mnist"]
    assert sorted(os.listdir(data_dir / "mnist")) == sorted(os.listdir(home))
    for file in home.iterdir():
        file.unlink()
    np.testing.assert_array_equal(data.load("mnist", str(data_dir), "test").images, first.images)


def test_a_bad_download_leaves_nothing(home, tmp_path, monkeypatch, capfd):
    name = "t10k-images-idx3-ubyte.gz"
    good = gzip.compress(idx(image(6)[None]))
    publish(monkeypatch, home, "fashion_mnist", name, good, good)
    (home / name).write_bytes(good[:-1])
    line = fails("fashion_mnist", tmp_path, "test")
    assert str(tmp_path / "fashion_mnist" / name) in line and "--dataset=digits" in line
    assert not any((tmp_path / "fashion_mnist").iterdir())
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10", "cifar10-random"])
def test_no_network_is_one_line(home, tmp_path, dataset):
    line = fails(dataset, tmp_path)
    # The digits have the shape of MNIST's images, not of CIFAR-10's.
    assert str(tmp_path) in line and ("--dataset=digits" in line) == ("mnist" in dataset)


def test_a_folder_that_cannot_be_written_is_one_line(home, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "--dataset=digits" in fails("mnist", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def pack(members):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return archive.getvalue()


def test_cifar10_s_archive_is_unpacked_safely(home, put, tmp_path, monkeypatch, capfd):
    blobs = {
        f"{CIFAR10}/{name}": python2_pickle(np.zeros((1, 3072), np.uint8), [number])
        for number, name in enumerate(BATCHES)
    }
    for name, blob in blobs.items():
        monkeypatch.setitem(download.MD5, name, md5(blob))
    ours = put(f"{CIFAR10}/data_batch_2", b"ours", known=md5(b"ours"))
    blob = pack(blobs | {"../escaped": b"!", f"{CIFAR10}/readme.html": b"!"})
    (home / "cifar-10-python.tar.gz").write_bytes(blob)
    monkeypatch.setitem(download.DOWNLOAD_MD5, f"{CIFAR10}/cifar-10-python.tar.gz", md5(blob))
    assert data.load("cifar10", str(tmp_path), "test").labels.tolist() == [5]
    assert sorted(os.listdir(tmp_path / CIFAR10)) == BATCHES
    assert ours.read_bytes() == b"ours"
    assert os.listdir(tmp_path) == [CIFAR10] and not (tmp_path.parent / "escaped").exists()
    assert capfd.readouterr().out == ""


def test_an_archive_without_the_batches_is_one_line(home, tmp_path, monkeypatch):
    blob = pack({"something": b"else"})
    (home / "cifar-10-python.tar.gz").write_bytes(blob)
    monkeypatch.setitem(download.DOWNLOAD_MD5, f"{CIFAR10}/cifar-10-python.tar.gz", md5(blob))
    assert str(tmp_path / CIFAR10 / "test_batch") in fails("cifar10", tmp_path, "test")
    assert not any((tmp_path / CIFAR10).iterdir())


def test_the_default_folder(monkeypatch):
    monkeypatch.setenv("SBP_DATA_DIR", "/somewhere")
    assert download.default_directory() == "/somewhere"
    monkeypatch.delenv("SBP_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert download.default_directory() == "/cache/structured-bayesian-pruning"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert download.default_directory() == "/home/someone/.cache/structured-bayesian-pruning"


# Digits


def test_digits_look_like_mnist_and_need_no_folder():
    splits = {split: data.load("digits", "/nowhere", split) for split in data.SPLITS}
    sizes = {"train": 1500, "test": 297, "train_minus_val": 1250, "val": 250}
    for split, (images, labels) in splits.items():
        assert images.shape == (sizes[split], 28, 28, 1) and images.dtype == np.uint8
        assert labels.shape == (sizes[split],) and labels.dtype == np.int32
        assert set(labels) == set(range(data.NUM_CLASSES))
        assert images[:, 4:24, 4:24].max() == 255
        assert not images[:, :4].any() and not images[:, 24:].any()
        assert not images[:, :, :4].any() and not images[:, :, 24:].any()
    for field in range(2):
        parts = [splits["train_minus_val"][field], splits["val"][field]]
        np.testing.assert_array_equal(np.concatenate(parts), splits["train"][field])


def test_digits_are_all_there_and_always_in_the_same_order():
    from scipy import ndimage
    from sklearn.datasets import load_digits

    digits = load_digits()
    grid = (np.arange(20) + 0.5) * 0.4 - 0.5
    where = np.meshgrid(range(1797), grid, grid, indexing="ij")
    expected = ndimage.map_coordinates(digits.images, where, order=1, mode="nearest") * 255 / 16
    order = np.random.Generator(np.random.PCG64(0)).permutation(1797)
    parts = [data.load("digits", "/nowhere", split) for split in ("train", "test")]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    assert abs(images[:, 4:24, 4:24, 0] - expected[order]).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(labels, digits.target[order])
    assert labels[:12].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1, 1, 9]


# The real files


@pytest.mark.skipif("SBP_DATA_DIR" not in os.environ, reason="needs $SBP_DATA_DIR")
def test_the_published_data_sets():
    folder = Path(download.default_directory())
    if (folder / "mnist").exists():
        train, test = (data.load("mnist", str(folder), split) for split in ("train", "test"))
        assert np.bincount(train.labels)[:2].tolist() == [5923, 6742]
        assert np.bincount(test.labels)[:2].tolist() == [980, 1135]
        assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert round(train.images.mean() / 255, 4) == 0.1307
    if (folder / CIFAR10).exists():
        test = data.load("cifar10", str(folder), "test")
        assert np.bincount(test.labels).tolist() == [1000] * 10
        assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
