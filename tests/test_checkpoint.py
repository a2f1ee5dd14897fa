"""The training checkpoint as a file: damage that is recognised, claims that are not believed, what is kept."""

import io
import zipfile

import numpy as np
import pytest

from keras_sbp.utils.io import checkpoint
from keras_sbp.utils.io.command_line import UserError

ARRAYS = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.array(7), "c": np.array("text")}


def same(arrays, others):
    return arrays.keys() == others.keys() and all(
        arrays[name].dtype == others[name].dtype and np.array_equal(arrays[name], others[name]) for name in arrays
    )


@pytest.fixture
def newest(tmp_path):
    """The newer of two checkpoints, of other arrays than the older."""
    checkpoint.save(tmp_path, 1, {"a": np.zeros(1)})
    checkpoint.save(tmp_path, 2, ARRAYS)
    return tmp_path / "checkpoint-00000002.npz"


def test_what_is_saved_comes_back(newest, tmp_path):
    assert same(checkpoint.latest(tmp_path), ARRAYS)


def test_no_bit_that_flips_changes_an_array(newest, tmp_path):
    good, passed_over = newest.read_bytes(), 0
    for index in range(len(good)):
        bad = bytearray(good)
        bad[index] ^= 1 << index % 8
        newest.write_bytes(bad)
        arrays = checkpoint.latest(tmp_path)
        before = same(arrays, {"a": np.zeros(1)})
        assert before or same(arrays, ARRAYS), index
        passed_over += before
    # Every bit of an array and of its header is among them; a date's is not.
    assert passed_over > len(good) / 2


def test_every_cut_is_recognised(newest, tmp_path):
    good = newest.read_bytes()
    for length in range(len(good)):
        newest.write_bytes(good[:length])
        assert same(checkpoint.latest(tmp_path), {"a": np.zeros(1)}), length


def test_where_none_is_whole_it_is_one_line(newest, tmp_path):
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="delete checkpoint-00000001.npz and checkpoint-00000002.npz"):
        checkpoint.latest(tmp_path)


def steps(folder):
    return sorted(int(path.stem[11:]) for path in folder.iterdir())


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, {"step": np.array(step)})
    assert steps(tmp_path) == [99_999_999, 100_000_000]
    assert checkpoint.latest(tmp_path)["step"] == 100_000_000


def test_a_damaged_one_of_a_later_step_takes_no_place(newest, tmp_path):
    (tmp_path / "checkpoint-00000009.npz").write_bytes(b"")
    checkpoint.save(tmp_path, 3, ARRAYS)
    assert steps(tmp_path) == [2, 3]


def test_a_header_s_claim_is_not_believed(newest, tmp_path):
    """An array of terabytes in a file of a kilobyte."""
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(newest, "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    assert same(checkpoint.latest(tmp_path), {"a": np.zeros(1)})


def test_a_bomb_is_not_unpacked(newest, tmp_path, monkeypatch):
    with zipfile.ZipFile(newest, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10_000_000))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match="claims to hold 10000000"):
        checkpoint.members(newest)


def test_two_writers_in_one_folder_do_not_take_each_other_s_file(tmp_path):
    """As two runs of prune.py do, with one --output beside the other."""

    def fill(file):
        file.write(b"first")
        checkpoint.write(tmp_path / "b", lambda other: other.write(b"second"))
        file.write(b", to its end")

    checkpoint.write(tmp_path / "a", fill)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"first, to its end", "b": b"second"}


def test_writing_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "other").write_text("precious")
    for name in ("file", ".file.aside"):
        (tmp_path / name).symlink_to(tmp_path / "other")
    checkpoint.write(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new" and (tmp_path / "other").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
