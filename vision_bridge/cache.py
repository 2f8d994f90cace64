"""A cache of arrays and files; a hash of everything that they depend on is in their names."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from files.arrays import growing_array, remove
from files.cached import tell_if_large
from files.download import in_cache
from files.errors import UserError
from files.locks import alone

T = TypeVar("T")


def key_of(*depends_on: Any) -> str:
    """A hash of values that JSON can hold."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:24]


def made_file(path: Path, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Reads a file with ``read``; if it is missing or damaged, ``make`` writes it first.

    Raises:
        UserError: the file is missing, and its folder cannot be written.
    """
    if path.exists():
        with suppress(UserError):  # read again below, with a note and the lock, which a read-only folder does not allow
            return read(path)
    with ExitStack() as stack:
        with in_cache(path):
            stack.enter_context(alone(path, waiting=f"waiting for another process, which writes {path}"))
        if path.exists():
            try:
                return read(path)
            except UserError as error:
                print(f"note: {str(error).split(';')[0]}: made again", flush=True)
        make(path)
        return read(path)


class Stage(NamedTuple):
    """Arrays [N, …] by split, and the key of everything that they depend on."""

    key: str
    arrays: dict[str, np.ndarray]

    def remove(self) -> None:
        """Deletes their files; other processes that read them can go on."""
        for array in self.arrays.values():
            remove(array)


class Cache(NamedTuple):
    """A folder of arrays and files."""

    folder: Path

    def path(self, name: str, key: str, suffix: str = ".npy") -> Path:
        """The path of a file with this key, whether it exists or not."""
        return self.folder / f"{name}-{key}{suffix}"

    def file(self, name: str, key: str, suffix: str, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        """``made_file`` of this key."""
        return made_file(self.path(name, key, suffix), make, read)

    def stage(
        self,
        name: str,
        depends_on: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        shape: tuple[int, ...],
        dtype: str,
        fill: Callable[[str, Any], None],
        opened: Callable[..., AbstractContextManager[Any]] | None = None,
    ) -> Stage:
        """A stage; computes what is not in the cache yet.

        Args:
            name: of its files.
            depends_on: everything that the arrays depend on, for JSON.
            inputs: arrays by split with the same numbers of rows.
            shape, dtype: of a row.
            fill: (split, file) computes the rows from ``file.done`` on.
            opened: opens a file: ``filling`` if all hosts of a job compute the rows together; None: ``growing_array``,
                where one process computes them and the others wait.

        Raises:
            UserError: an array is missing, and the cache cannot be written.
        """
        arrays = {}
        for split, rows in inputs.items():
            about = {**depends_on, "split": split}
            path = self.path(name, key_of(about))
            with ExitStack() as stack:
                with in_cache(path):
                    whole = (len(rows), *shape)
                    file = stack.enter_context((opened or growing_array)(path, whole, dtype, about, renew=True))
                if file.done < len(rows):
                    tell_if_large(path, whole, dtype)
                    fill(split, file)
                arrays[split] = file.read_only()  # before another process may remove it
        return Stage(key_of(depends_on), arrays)
