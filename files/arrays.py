"""A ``.npy`` file that is filled step by step, is never whole in memory, and can be resumed."""

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from files.documents import read_sealed, write_sealed
from files.errors import UserError
from files.locks import alone
from files.writing import replacing

_MOVE = "; move it away"


def release(array: np.ndarray) -> None:
    """Frees the memory of a memory-mapped array, where the system can; its pages are read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def remove(array: np.ndarray) -> None:
    """Deletes the file that a memory-mapped array was read from, and its note."""
    path = Path(array.filename)  # type: ignore[attr-defined]
    _note_of(path).unlink()
    path.unlink()


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array, whole or not at all."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, array)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays, whole or not at all."""
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes a name for allow_pickle


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _reserve(path: Path) -> None:
    """Reserves the file's space on the disk: a full disk is an error here; later it would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # not: the file system cannot reserve
                    raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def growing_array(
    path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any], renew: bool = False
) -> Iterator["GrowingArray"]:
    """Opens or creates an array of rows to be filled; another process that wants it waits until this one has left.

    Args:
        path: the ``.npy`` file.
        shape, dtype: of the whole array.
        depends_on: all that its content depends on, for JSON.
        renew: for a cache: a file that is damaged or holds something else is made again, with a note.

    Raises:
        UserError: ``path`` is damaged or holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path, waiting=f"waiting for another process, which writes {path}"):
        try:
            file = GrowingArray(path, shape, dtype, depends_on)
        except UserError as error:
            if not renew:
                raise
            print(f"note: {str(error).removesuffix(_MOVE)}: made again", flush=True)
            path.unlink(missing_ok=True)
            file = GrowingArray(path, shape, dtype, depends_on)
        yield file


class GrowingArray:
    """A memory-mapped array; a ``.json`` beside it says what it depends on and how many rows are done.

    Attributes:
        array: the rows.
        done: rows that an earlier call finished.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any]) -> None:
        """See ``growing_array``, which keeps other processes out."""
        self._note = _note_of(path)
        self._depends_on = json.loads(json.dumps(depends_on | {"shape": shape, "dtype": dtype}))
        self.done = self._resume(path)
        if not self.done:
            self.save(0)
        self.array: np.memmap = self._open(path, shape, dtype)

    def _open(self, path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap:
        if not self.done:
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            _reserve(path)
            return array
        try:
            np.load(path, mmap_mode="r")  # refuses a file cut short, which r+ would fill up with zeros
            array = np.lib.format.open_memmap(path, "r+")
        except (OSError, ValueError, EOFError) as error:  # a file cut short among them
            raise UserError(f"{path}: damaged ({error}){_MOVE}") from error
        if array.shape != shape or array.dtype != dtype or self.done > shape[0]:
            raise UserError(f"{path}: {array.dtype} {array.shape}, and {self._note.name} says otherwise{_MOVE}")
        return array

    def save(self, done: int) -> None:
        """Writes the array to the disk, and into its note that ``done`` rows are finished."""
        if done:
            self.array.flush()
            release(self.array)
        write_sealed(self._note, self._depends_on | {"done": done})
        self.done = done

    def fill(
        self, parts: Iterable[np.ndarray], save_every: int = 1, on_progress: Callable[[int], None] = lambda done: None
    ) -> None:
        """Writes the rows from ``done`` on.

        Args:
            parts: [n, …] rows in order, the first part beginning at row ``done``.
            save_every: parts between saves; the end is saved too. An interruption loses the rows since the last save.
            on_progress: told the number of rows done.
        """
        done = self.done
        for number, part in enumerate(parts, 1):
            self.array[done : done + len(part)] = part
            done += len(part)
            if number % save_every == 0 or done == len(self.array):
                self.save(done)
            on_progress(done)

    def _resume(self, path: Path) -> int:
        if not path.exists():
            return 0
        try:
            before = read_sealed(self._note)
            done = int(before.pop("done"))
        except (UserError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} exists and {self._note.name} does not say what it is ({error}){_MOVE}") from error
        for name, value in self._depends_on.items():
            if before.get(name) != value:
                raise UserError(f"{path} holds something else ({name} {before.get(name)!r}, not {value!r}){_MOVE}")
        return done
