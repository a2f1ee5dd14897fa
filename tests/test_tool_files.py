"""Data from files: .npz of the usual names, folders of images, and what is wrong with some of them."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_sbp.utils.tool import files

GRAY, RGB = (8, 8, 1), (8, 8, 3)


def arrays(count=12):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 8, 8, 3), np.uint8), np.arange(count) % 3


@pytest.mark.parametrize("names", [*files.TRAIN[:6]], ids=" ".join)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_either_kind_and_of_the_usual_names(names, save, tmp_path):
    x, y = arrays()
    save(tmp_path / "data.npz", **dict(zip(names, (x, y))))
    found = files.read(str(tmp_path / "data.npz"), RGB, tmp_path)
    assert found.train[0].dtype == np.uint8, "in their own type"
    np.testing.assert_array_equal(found.train[0], x)
    np.testing.assert_array_equal(found.train[1], y)
    assert found.test is None and found.validation is None


def test_parts_of_an_npz(tmp_path):
    (x, y), (x_test, y_test), (x_val, y_val) = arrays(12), arrays(6), arrays(9)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test, x_val=x_val, y_val=y_val)
    found = files.read(str(tmp_path / "data.npz"), RGB, tmp_path)
    assert [len(pair[1]) for pair in found[:3]] == [12, 9, 6]


def test_gray_images_without_an_axis_of_channels(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "data.npz", x=x[..., 0], y=y)
    assert files.read(str(tmp_path / "data.npz"), GRAY, tmp_path).train[0].shape == (12, 8, 8, 1)


def folder(path, splits=("train", "test")):
    """Two images of each of three classes: the first is red, the second green, the third blue."""
    for split in splits:
        for number, name in enumerate(("ant", "bee", "cat")):
            (path / split / name).mkdir(parents=True)
            for copy in range(2):
                image = np.zeros(RGB, np.uint8)
                image[..., number] = 250 + copy
                Image.fromarray(image).save(path / split / name / f"{copy}.png")
    return path


@pytest.mark.parametrize(
    "splits, parts",
    [(("train", "test"), (6, None, 6)), (("train", "val", "test"), (6, 6, 6)), (("",), (6, None, None))],
)
def test_a_folder_of_images_per_class(splits, parts, tmp_path):
    found = files.read(str(folder(tmp_path / "images", splits)), RGB, tmp_path)
    assert tuple(pair and len(pair[1]) for pair in found[:3]) == parts and found.classes == ("ant", "bee", "cat")
    x, y = found.train
    assert x.dtype == np.uint8 and y.tolist() == [0, 0, 1, 1, 2, 2]
    assert x[:, 0, 0].tolist() == [[250, 0, 0], [251, 0, 0], [0, 250, 0], [0, 251, 0], [0, 0, 250], [0, 0, 251]]


def test_many_images_are_kept_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_IN_MEMORY", 1000)
    small = files.read(str(folder(tmp_path / "images")), RGB, tmp_path / "cache").train[0]
    assert isinstance(small, np.memmap) and small[5, 0, 0].tolist() == [0, 0, 251]


def saved(image, name, tmp_path, **settings):
    image.save(tmp_path / name, **settings)
    return tmp_path / name


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = 255, 0, 0, 255  # red above, and below black that is not seen
    path = saved(Image.fromarray(pixels), "a.png", tmp_path)
    found = files.image(path, RGB)
    assert found[0, 0].tolist() == [255, 0, 0] and found[7, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(files.image(path, (8, 8, 4)), pixels)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 0, 255, 0])
    assert files.image(saved(palette, "b.png", tmp_path, transparency=1), RGB)[0, 0].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", tmp_path, quality=95)
    red = files.image(path, RGB)[4, 4].astype(int)
    assert red[0] > 220 and red[1] < 40 and red[2] < 40


def test_sixteen_bits_become_eight_and_a_photograph_is_turned(tmp_path):
    deep = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    assert (files.image(saved(deep, "a.png", tmp_path), GRAY) == 255).all()
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = files.image(saved(Image.fromarray(pixels), "b.png", tmp_path, exif=exif), RGB)
    assert found[0, 0, 0] == 0 and found[7, 0, 0] == 255


def test_images_are_brought_to_the_size_of_the_network(tmp_path):
    path = saved(Image.new("RGB", (40, 20), (10, 20, 30)), "a.png", tmp_path)
    assert (files.image(path, RGB) == (10, 20, 30)).all()


def wrong(kind, path):
    x, y = arrays()
    data, shape = path / "data.npz", RGB
    if kind == "objects":
        np.savez(data, x=np.array([{}], dtype=object), y=y[:1], allow_pickle=True)
    elif kind == "cut short":
        np.savez(data, x=x, y=y)
        data.write_bytes(data.read_bytes()[:-200])
    elif kind == "other names":
        np.savez(data, a=x, b=y)
    elif kind == "half a test set":
        np.savez(data, x=x, y=y, x_test=x)
    elif kind == "text":
        np.savez(data, x=x, y=y.astype(str))
    elif kind == "a folder of files":
        data = path / "images"
        data.mkdir()
    elif kind == "an empty class":
        data = folder(path / "images")
        (data / "train" / "dog").mkdir()
    elif kind == "a class of tests only":
        data = folder(path / "images")
        (data / "test" / "dog").mkdir()
    elif kind == "not an image":
        data = folder(path / "images")
        (data / "train" / "ant" / "0.png").write_bytes(b"GIF89a" + bytes(20))
    elif kind == "cut short image":
        data, buffer = folder(path / "images"), io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "png")
        (data / "train" / "ant" / "0.png").write_bytes(buffer.getvalue()[:500])
    elif kind == "no images wanted":
        data, shape = folder(path / "images"), (64,)
    return str(data), shape


WRONG = {
    "objects": "cannot read", "cut short": "cannot read", "other names": "has a, b", "half a test set": "other half",
    "text": "give numbers", "none": "no data at", "a folder of files": "one folder of images per class",
    "an empty class": "has no images", "a class of tests only": "a class dog", "not an image": "as an image",
    "cut short image": "as an image", "no images wanted": "give a .npz",
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_read_is_one_line(kind, tmp_path):
    data, shape = wrong(kind, tmp_path)
    with pytest.raises(ValueError, match=WRONG[kind]) as raised:
        files.read(data, shape, tmp_path / "cache")
    assert "\n" not in str(raised.value)
