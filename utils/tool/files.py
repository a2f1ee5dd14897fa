"""Reading data: a .npz file, or a folder with one folder of images per class."""

import math
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from keras_sbp.utils.tool.refusal import Refused

# Names of the arrays of a .npz file: (examples, labels).
TRAIN = (("x", "y"), ("x_train", "y_train"), ("X", "y"), ("X_train", "y_train"), ("train_images", "train_labels"))
TRAIN += (("images", "labels"), ("data", "labels"), ("data", "target"))
TEST = (("x_test", "y_test"), ("X_test", "y_test"), ("test_images", "test_labels"))
VALIDATION = (("x_val", "y_val"), ("x_valid", "y_valid"), ("X_val", "y_val"), ("val_images", "val_labels"))
# Of a folder of images.
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
# Bytes: more than this of images is kept in a file, which the system reads as it is needed.
LARGEST_IN_MEMORY = 1_000_000_000

Pair = tuple[np.ndarray, np.ndarray]


class Data(NamedTuple):
    """(x, y) each; None where there are none. classes: names, of a folder."""

    train: Pair
    validation: Pair | None
    test: Pair | None
    classes: tuple[str, ...] = ()


def read(path: str, shape: tuple[int | None, ...], cache: Path) -> Data:
    """The data of a file or folder.

    Args:
        shape: of an example, as the network reads it.
        cache: a folder for images that do not fit in memory.
    Raises:
        Refused: it cannot be read.
    """
    if os.path.isdir(path):
        return _read_folder(Path(path), shape, cache)
    if not os.path.isfile(path):
        raise Refused(f"no data at {path}: give a .npz file, or a folder with a folder of images per class")
    return _read_npz(path, shape)


def _read_npz(path: str, shape: tuple[int | None, ...]) -> Data:
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_size(path)
            found = {}
            for name, pairs in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
                pair = next((pair for pair in pairs if set(pair) <= set(file.files)), None)
                found[name] = pair and tuple(file[array] for array in pair)
            others = ("validation", VALIDATION), ("test", TEST)
            half = [
                name
                for part, pairs in others if found[part] is None
                for pair in pairs for name in pair if name in file.files
            ]  # fmt: skip
            names = file.files
    except Refused:
        raise
    except Exception as error:  # whatever a damaged file makes zipfile and NumPy raise
        raise Refused(f"cannot read {path} as .npz ({error}): expected arrays x and y") from None
    if found["train"] is None:
        raise Refused(f"{path} has {', '.join(names) or 'nothing'}: expected arrays x and y, or x_train and y_train")
    if half:
        raise Refused(f"{path} has {half[0]} without its other half: give examples and labels, or neither")
    return Data(*(pair and (_with_channel(pair[0], shape), _labels(path, pair[1])) for pair in found.values()))


def _check_size(path: str) -> None:
    """Refuse a file that claims more than there is memory."""
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if claimed > memory:
        raise Refused(f"{path} unpacks to {claimed / 1e9:.0f} GB, more than the memory: give a folder of images")


def _with_channel(x: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """Gray images (N, height, width) for a network that reads (height, width, 1)."""
    return x[..., None] if x.ndim == len(shape) and shape[-1] == 1 else x


def _labels(path: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "iufb":
        raise Refused(f"{path} has labels of {y.dtype}: give numbers, the classes from 0")
    return y


def _read_folder(folder: Path, shape: tuple[int | None, ...], cache: Path) -> Data:
    if len(shape) != 3 or shape[-1] not in (1, 3, 4):
        raise Refused(f"{folder} has images, and the network reads {shape}: give a .npz file for it")
    splits = {
        name: next((folder / each for each in names if (folder / each).is_dir()), None)
        for name, names in SPLITS.items()
    }
    if splits["train"] is None:
        splits = {"train": folder, "validation": None, "test": None}
    classes = _classes(splits["train"])
    files = {name: where and _files(where, classes) for name, where in splits.items()}
    size = shape if None not in shape[:2] else (*_size(files["train"][0][0]), shape[-1])
    pairs = [found and _images(name, found, size, cache) for name, found in files.items()]
    return Data(*pairs, classes)


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if len(names) < 2:
        raise Refused(f"{folder} has {len(names)} folders: expected one folder of images per class")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """(path, class) of all images of a split."""
    if other := sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes)):
        raise Refused(f"{folder} has a class {other[0]} that the training images have not: give it examples there")
    found = []
    for number, name in enumerate(classes):
        entries = sorted((folder / name).rglob("*")) if (folder / name).is_dir() else []
        own = [(path, number) for path in entries if path.suffix.lower() in SUFFIXES]
        if not own:
            raise Refused(f"{folder / name} has no images: expected {', '.join(sorted(SUFFIXES))}")
        found += own
    return found


def _images(name: str, files: list[tuple[Path, int]], shape: tuple[int, ...], cache: Path) -> Pair:
    """uint8 (N, *shape) and classes (N,)."""
    whole = (len(files), *shape)
    if math.prod(whole) <= LARGEST_IN_MEMORY:
        x = np.empty(whole, np.uint8)
    else:
        cache.mkdir(parents=True, exist_ok=True)
        x = np.lib.format.open_memmap(cache / f"{name}.npy", "w+", np.uint8, whole)
    for number, (path, _) in enumerate(tqdm(files, desc=f"reading {name} images", unit="image", leave=False)):
        x[number] = image(path, shape)
    return x, np.array([label for _, label in files], np.int32)


def _size(path: Path) -> tuple[int, int]:
    with _open(path) as opened:
        return opened.size[::-1]


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise Refused(f"cannot read {path} as an image ({error}): remove it, or save it again") from None


def image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An image as uint8 of (height, width, channels), resized if need be.

    What is transparent becomes white, unless the network reads four channels; CMYK becomes RGB; 16 bits become 8; a
    photograph is turned as its camera says.
    """
    with _open(path) as opened:
        try:
            found = ImageOps.exif_transpose(opened)
            if found.mode.startswith(("I", "F")):
                values = np.asarray(found, np.float64)
                found = Image.fromarray((values / (257 if values.max() > 255 else 1)).round().astype(np.uint8))
            if shape[-1] != 4 and (found.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in found.info):
                found = found.convert("RGBA")
                found = Image.alpha_composite(Image.new("RGBA", found.size, "white"), found)
            found = found.convert({1: "L", 3: "RGB", 4: "RGBA"}[shape[-1]])
            if found.size != (shape[1], shape[0]):
                found = found.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        except Exception as error:  # whatever a damaged file makes Pillow raise
            raise Refused(f"cannot read {path} as an image ({error}): remove it, or save it again") from None
    return np.asarray(found).reshape(shape)
