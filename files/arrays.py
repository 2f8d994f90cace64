"""A ``.npy`` file that is filled step by step, is never whole in memory, and knows how far it is."""

import errno
import json
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from files.errors import UserError
from files.text import write_text


def release(array: np.ndarray) -> None:
    """Lets the pages of a memory-mapped array go, where the system can; they are read again when they are needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def remove(array: np.ndarray) -> None:
    """Deletes the file that a memory-mapped array was read from, and its note."""
    path = Path(array.filename)  # type: ignore[attr-defined]
    _note_of(path).unlink()
    path.unlink()


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _reserve(path: Path) -> None:
    """Takes the file's place on the disk at once: a full disk is an error here, and kills the process later."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # not: the file system cannot reserve
                    raise OSError(error.errno, error.strerror, str(path)) from error


class GrowingArray:
    """A memory-mapped array; beside it, a ``.json`` with what it is and how many of its rows are done.

    Attributes:
        array: the rows, to be written to.
        done: rows that an earlier call finished.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any]) -> None:
        """Opens or creates ``path``; ``depends_on`` is all that its content depends on.

        Raises:
            UserError: ``path`` holds something else.
        """
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
            raise UserError(f"{path}: damaged ({error}); move it away") from error
        if array.shape != shape or array.dtype != dtype or self.done > shape[0]:
            raise UserError(f"{path}: {array.dtype} {array.shape}, and {self._note.name} says otherwise; move it away")
        return array

    def save(self, done: int) -> None:
        """Writes down that ``done`` rows are there."""
        if done:
            self.array.flush()
            release(self.array)
        write_text(self._note, json.dumps(self._depends_on | {"done": done}, indent=2))
        self.done = done

    def _resume(self, path: Path) -> int:
        if not path.exists():
            return 0
        try:
            before = json.loads(self._note.read_text())
            done = int(before.pop("done"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{path} exists and {self._note.name} does not say what it is; move it away") from error
        for name, value in self._depends_on.items():
            if before.get(name) != value:
                raise UserError(
                    f"{path} holds something else ({name} {before.get(name)!r}, not {value!r}); move it away"
                )
        return done
