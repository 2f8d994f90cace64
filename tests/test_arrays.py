"""Arrays that are filled part by part: what an interruption leaves, where the next call resumes, what is damaged."""

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files.arrays import GrowingArray, growing_array
from files.documents import read_sealed, write_sealed
from files.errors import UserError

ROWS = np.arange(14, dtype=np.float32).reshape(7, 2)


def _parts(start: int, stop: int) -> Iterator[np.ndarray]:
    for first in range(start, stop, 2):
        yield ROWS[first : first + 2]
    if stop < len(ROWS):
        raise KeyboardInterrupt


def test_an_interruption_loses_what_was_not_saved(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {}).fill(_parts(0, 6), 2, told.append)
    file = GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {})
    assert told == [2, 4, 6] and file.done == 4  # saved after every second part
    file.fill(_parts(file.done, 7), 2, told.append)
    assert told == [2, 4, 6, 6, 7] and file.done == 7
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ROWS)
    assert GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {}).done == 7


def _write(path: Path, how: str) -> None:
    """Fills an array in one go, in two, out of order, or its first 4 rows only."""
    file = GrowingArray(path, (7, 2), "float32", {})
    if how in ("resumed", "half-done"):
        with pytest.raises(KeyboardInterrupt):
            file.fill(_parts(0, 4))
        file = GrowingArray(path, (7, 2), "float32", {})
    if how in ("in order", "resumed"):
        file.fill(_parts(file.done, 7), 3)
    elif how == "out of order":
        for done, rows in ((3, [6, 0, 2]), (7, [1, 3, 5, 4])):
            file.array[rows] = ROWS[rows]
            file.save(done)


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("place", [-1, -6, -9 * 4, -14 * 4, 40, 127], ids=str)
@pytest.mark.parametrize("how", ["in order", "resumed", "out of order", "half-done"])
def test_a_flipped_bit_is_found(tmp_path: Path, how: str, place: int, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "a.npy"
    _write(path, how)
    _flip(path, place)
    if how == "half-done" and place in (-1, -6):  # rows that were not done: they are written again
        assert GrowingArray(path, (7, 2), "float32", {}).done == 4
        return
    with pytest.raises(UserError, match=r"a\.npy: damaged.*; move it away"):
        GrowingArray(path, (7, 2), "float32", {})
    with growing_array(path, (7, 2), "float32", {}, renew=True) as file:
        assert file.done == 0
        file.fill(_parts(0, 7))
    assert capsys.readouterr().out.count("made again\n") == 1
    np.testing.assert_array_equal(np.load(path), ROWS)


def test_arrays_that_changed_places_are_found(tmp_path: Path) -> None:
    for name, rows in (("a", ROWS), ("b", ROWS[::-1])):
        GrowingArray(tmp_path / f"{name}.npy", (7, 2), "float32", {"split": name}).fill([rows])
    one, two = (tmp_path / f"{name}.npy" for name in "ab")
    one_content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(one_content)
    for path in (one, two):
        with pytest.raises(UserError, match="damaged"):
            GrowingArray(path, (7, 2), "float32", {"split": path.stem})


@pytest.mark.parametrize("how", ["in order", "half-done"])
def test_a_note_of_an_earlier_version_has_no_checksum(tmp_path: Path, how: str) -> None:
    path, note = tmp_path / "a.npy", tmp_path / "a.json"
    _write(path, how)
    about = read_sealed(note)
    del about["crc32"]
    write_sealed(note, about)
    file = GrowingArray(path, (7, 2), "float32", {})
    file.fill(_parts(file.done, 7))
    if how == "half-done":  # it has one from now on
        _flip(path, -14 * 4)
        with pytest.raises(UserError, match="damaged"):
            GrowingArray(path, (7, 2), "float32", {})


def test_what_takes_an_array_s_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    _write(path, "in order")
    path.unlink()
    path.mkdir()
    for renew in (False, True):  # a folder is no damaged array, and what is in it may be needed
        with (
            pytest.raises(UserError, match=r"a\.npy: not a regular file; move it away"),
            growing_array(path, (7, 2), "float32", {}, renew),
        ):
            pass
    assert path.is_dir()


@pytest.mark.parametrize("done", [-1, 8, 2.5, "7", None, True])
def test_a_number_of_rows_that_makes_no_sense(tmp_path: Path, done: object) -> None:
    _write(tmp_path / "a.npy", "in order")
    write_sealed(tmp_path / "a.json", read_sealed(tmp_path / "a.json") | {"done": done})
    with pytest.raises(UserError, match=r"a\.npy.*; move it away"):
        GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {})


def test_an_array_of_more_rows_is_another_array(tmp_path: Path) -> None:
    """As of more images than are asked for now: nothing is damaged, and the error names the choice that differs."""
    GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {"num_images": 7}).fill([ROWS])
    message = r"a\.npy holds another array \(num_images 7, not 4\); move it away"
    for rows in (4, 9):
        with pytest.raises(UserError, match=message.replace("4", str(rows))):
            GrowingArray(tmp_path / "a.npy", (rows, 2), "float32", {"num_images": rows})


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: .*m\.npy"):
        GrowingArray(tmp_path / "m.npy", (5, 2), "float32", {})
    monkeypatch.undo()
    assert GrowingArray(tmp_path / "m.npy", (5, 2), "float32", {}).done == 0


def test_what_gives_the_parts_is_closed_when_they_cannot_be_written(tmp_path: Path) -> None:
    closed: list[bool] = []

    def parts() -> Iterator[np.ndarray]:
        try:
            while True:
                yield np.zeros((2, 2), np.float32)
        finally:
            closed.append(True)

    def full(done: int) -> None:
        raise OSError("no room")

    with growing_array(tmp_path / "a.npy", (8, 2), "float32", {}) as file, pytest.raises(OSError) as kept:
        file.fill(parts(), on_progress=full)
    assert closed == [True] and kept.value is not None
