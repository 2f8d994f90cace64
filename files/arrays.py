"""A ``.npy`` file that is filled step by step, is never whole in memory, and can be resumed.

A note next to it has a checksum of the finished rows, which is compared when the file is opened: this finds a flipped
bit, and an array of another split. CRC-32 finds every single flipped bit, at twice the speed of SHA-256.
"""

import errno
import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_sealed, shown, write_sealed
from files.errors import UserError
from files.limits import check_regular
from files.locks import alone
from files.npz import DAMAGES
from files.writing import is_held_back, replacing

_MOVE = "; move it away"
_BLOCK = 4 * 2**20  # bytes read at a time
_SUM = "crc32"


def release(array: np.ndarray) -> None:
    """Frees the memory of a memory-mapped array, if the system can; its pages are read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def remove(array: np.ndarray) -> None:
    """Deletes the file of a memory-mapped array, and its note; processes that have it mapped can still read it.

    A file that another process is writing stays, and so does a file in a read-only folder.
    """
    path = Path(array.filename)  # type: ignore[attr-defined]
    with suppress(OSError), alone(path):
        path.unlink(missing_ok=True)
        _note_of(path).unlink(missing_ok=True)


def put_copy(path: Path, at: Path) -> None:
    """Puts a finished array and its note also at ``at``: as a second name of the file, or a copy on another disk.

    A finished array is never written again, so a second name is as safe as a copy.
    """
    if is_held_back(at):
        return
    for source, target in ((path, at), (_note_of(path), _note_of(at))):
        with replacing(target) as draft:
            draft.unlink(missing_ok=True)
            try:
                os.link(source, draft)
            except OSError:
                shutil.copyfile(source, draft)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array, whole or not at all."""
    if is_held_back(path):
        return
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays, whole or not at all."""
    if is_held_back(path):
        return
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes a name for allow_pickle


def read_note(path: Path) -> dict[str, Any] | None:
    """The content of an array's note; None if it has none, or one that is not ours."""
    try:
        return read_sealed(_note_of(path)) if _note_of(path).is_file() else None
    except UserError:
        return None


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _reserve(path: Path) -> None:
    """Reserves the file's space on the disk, so that a full disk is an error now and not a crash later."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # else the file system cannot reserve
                    raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def growing_array(
    path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any], renew: bool = False
) -> Iterator["GrowingArray"]:
    """Opens or creates an array of rows to fill; another process that wants it waits until this one is done.

    Args:
        path: the ``.npy`` file.
        shape, dtype: of the whole array.
        depends_on: everything that its content depends on, for JSON.
        renew: for a cache: a damaged or different file is computed again, with a note.

    Raises:
        UserError: ``path`` is damaged or holds something else.
    """
    try:  # without a lock, since a read-only folder cannot have one
        finished = GrowingArray(path, shape, dtype, depends_on, reading=True)
    except (UserError, FileNotFoundError):  # the second: another process is removing it
        finished = None
    if finished is not None:
        yield finished
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path, waiting=f"waiting for another process, which writes {path}"):
        try:
            file = GrowingArray(path, shape, dtype, depends_on)
        except UserError as error:
            if not renew or path.is_dir():
                raise
            print(f"note: {str(error).removesuffix(_MOVE)}: made again", flush=True)
            path.unlink(missing_ok=True)
            file = GrowingArray(path, shape, dtype, depends_on)
        yield file


class GrowingArray:
    """A memory-mapped array; its note, a ``.json`` file, says what it depends on and how many rows are done.

    Attributes:
        array: the rows; read-only if the array is finished.
        done: rows that an earlier call finished.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any], reading: bool = False
    ) -> None:
        """See ``growing_array``, which keeps other processes out; ``reading``: only a finished array is accepted."""
        self._path, self._note = path, _note_of(path)
        self._depends_on = json.loads(json.dumps(depends_on | {"shape": shape, "dtype": dtype}))
        self.done, checksum = self._resume(shape[0])
        if reading and not 0 < self.done == shape[0]:
            raise UserError(f"{path}: not finished")
        if not self.done:
            self.save(0)
        self.array: np.memmap = self._open(shape, dtype)
        if checksum not in (None, self._checksum(self.done)):
            raise UserError(f"{path}: damaged (it does not have the checksum in {self._note.name}){_MOVE}")

    def _open(self, shape: tuple[int, ...], dtype: str) -> np.memmap:
        path = self._path
        if not self.done:
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            _reserve(path)
            return array
        try:
            array = np.load(path, mmap_mode="r")  # refuses a truncated file, which r+ would fill with zeros
            if self.done < shape[0]:
                array = np.lib.format.open_memmap(path, "r+")
        except DAMAGES as error:  # also for a truncated file
            raise UserError(f"{path}: damaged ({error}){_MOVE}") from error
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise UserError(f"{path}: {array.dtype} {array.shape}, and {self._note.name} says otherwise{_MOVE}")
        return array

    def read_only(self) -> np.ndarray:
        """The rows, read-only; they stay readable after the file is deleted."""
        return np.load(self._path, mmap_mode="r") if self.array.flags.writeable else self.array

    def save(self, done: int) -> None:
        """Writes the array to the disk, and the number of finished rows, ``done``, to its note."""
        self._save(done, None)

    def _save(self, done: int, checksum: int | None) -> None:
        """``save`` with the checksum of the first ``done`` rows; None: a finished array is read again to compute it."""
        if done:
            self.array.flush()
            release(self.array)
            if checksum is None and done == len(self.array):
                checksum = self._checksum(done)
        write_sealed(self._note, self._depends_on | {"done": done} | ({} if checksum is None else {_SUM: checksum}))
        self.done = done

    def _checksum(self, done: int) -> int:
        """Checksum of the file up to the end of row ``done``; read as a stream, which needs little memory."""
        left, checksum = self.array.offset + self.array[:done].nbytes, 0
        with self._path.open("rb") as file:
            while left and (block := file.read(min(left, _BLOCK))):
                checksum, left = zlib.crc32(block, checksum), left - len(block)
        return checksum

    def fill(
        self, parts: Iterable[np.ndarray], save_every: int = 1, on_progress: Callable[[int], None] = lambda done: None
    ) -> None:
        """Writes the rows from ``done`` on.

        Args:
            parts: [n, …] rows in order, the first part beginning at row ``done``.
            save_every: parts between saves; the end is also saved. An interruption loses the rows since the last save.
            on_progress: called with the number of rows done.
        """
        done, checksum = self.done, self._checksum(self.done)
        try:
            for number, part in enumerate(parts, 1):
                rows = self.array[done : done + len(part)]
                rows[:] = part
                checksum = zlib.crc32(rows.data, checksum)
                done += len(part)
                if number % save_every == 0 or done == len(self.array):
                    self._save(done, checksum)
                on_progress(done)
        finally:
            if isinstance(parts, Generator):  # after an error, such as a full disk: it may own a thread
                parts.close()

    def _resume(self, rows: int) -> tuple[int, int | None]:
        """The number of finished rows, and their checksum (None for files of earlier versions)."""
        path = self._path
        if not path.exists():
            return 0, None
        try:
            check_regular(path)
        except UserError as error:
            raise UserError(f"{error}{_MOVE}") from error
        try:
            before = read_sealed(self._note)
            done, checksum = before["done"], before.get(_SUM)
            others = [(name, value) for name, value in self._depends_on.items() if before.get(name) != value]
            # The number of rows that are done is compared with those of the same array only.
            if not others and (type(done) is not int or not 0 <= done <= rows):
                raise ValueError(f"it says that {shown(done)} rows of {rows:,} are done")
        except (UserError, ValueError, KeyError) as error:
            raise UserError(f"{path} exists and {self._note.name} does not say what it is ({error}){_MOVE}") from error
        for name, value in others:
            raise UserError(f"{path} holds another array ({name} {before.get(name)!r}, not {value!r}){_MOVE}")
        return done, checksum
