"""Arrays and files that are named by a hash of everything that they depend on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from files.arrays import GrowingArray, growing_array, remove
from files.errors import UserError
from files.locks import alone

T = TypeVar("T")


def key_of(*depends_on: Any) -> str:
    """The hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:24]


class Stage(NamedTuple):
    """Arrays [N, …] by split, and the key of all that they depend on."""

    key: str
    arrays: dict[str, np.ndarray]

    def remove(self) -> None:
        """Deletes their files."""
        for array in self.arrays.values():
            remove(array)


class Cache(NamedTuple):
    """A folder of arrays and files."""

    folder: Path

    def path(self, name: str, key: str, suffix: str = ".npy") -> Path:
        """The path of a file with this key, whether it exists or not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}-{key}{suffix}"

    def file(self, name: str, key: str, suffix: str, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        """What ``read`` finds in a file; ``make`` writes it where it is not there yet, or damaged."""
        path = self.path(name, key, suffix)
        with alone(path, waiting=f"waiting for another process, which writes {path}"):
            if path.exists():
                try:
                    return read(path)
                except UserError as error:
                    print(f"note: {str(error).split(';')[0]}: made again", flush=True)
            make(path)
            return read(path)

    def stage(
        self,
        name: str,
        depends_on: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        shape: tuple[int, ...],
        dtype: str,
        fill: Callable[[str, GrowingArray], None],
    ) -> Stage:
        """A stage; what is not in the cache yet is computed.

        Args:
            name: of its files.
            depends_on: all that the arrays depend on, for JSON.
            inputs: arrays by split, of as many rows.
            shape, dtype: of a row.
            fill: (split, file) computes the rows from ``file.done`` on.
        """
        arrays = {}
        for split, rows in inputs.items():
            about = {**depends_on, "split": split}
            path = self.path(name, key_of(about))
            with growing_array(path, (len(rows), *shape), dtype, about, renew=True) as file:
                if file.done < len(rows):
                    fill(split, file)
            arrays[split] = np.load(path, mmap_mode="r")
        return Stage(key_of(depends_on), arrays)
