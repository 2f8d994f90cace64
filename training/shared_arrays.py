"""Arrays on disk that all hosts of a job compute together, and only the chief writes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from files.arrays import GrowingArray, growing_array
from files.errors import UserError
from files.npz import DAMAGES
from training.hosts import exchange, hosts


class Filling(Protocol):
    """The interface of ``files.arrays.GrowingArray`` and of its substitute on hosts that do not write."""

    done: int
    array: Any

    def save(self, done: int) -> None: ...

    def fill(
        self, parts: Iterable[np.ndarray], save_every: int = 1, on_progress: Callable[[int], None] = lambda done: None
    ) -> None: ...

    def read_only(self) -> np.ndarray: ...


@contextmanager
def filling(
    path: Path, shape: tuple[int, ...], dtype: str, depends_on: dict[str, Any], renew: bool = False
) -> Iterator[Filling]:
    """``growing_array`` for several hosts; the chief's file decides how many rows are already done.

    When the block ends, the file is complete for all hosts.

    Raises:
        UserError: as in ``growing_array``; or this host does not see the chief's file at ``path``.
    """
    if hosts().count == 1:
        with growing_array(path, shape, dtype, depends_on, renew) as file:
            yield file
        return
    if hosts().chief:
        with growing_array(path, shape, dtype, depends_on, renew) as file:
            exchange(file.done)
            yield _Leader(file)
        exchange("written")
        return
    yield _Follower(path, exchange(None)[0])
    exchange("written")


class _Leader:
    """The array, on the host that writes it."""

    def __init__(self, file: GrowingArray) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read_only(self) -> np.ndarray:
        exchange("filled")
        return self._file.read_only()


class _Follower:
    """Takes part in the computation of an array that the chief writes."""

    def __init__(self, path: Path, done: int) -> None:
        self._path, self.done, self.array = path, done, _Nowhere()

    def save(self, done: int) -> None:
        self.done = done

    def fill(
        self, parts: Iterable[np.ndarray], save_every: int = 1, on_progress: Callable[[int], None] = lambda done: None
    ) -> None:
        for part in parts:
            self.done += len(part)

    def read_only(self) -> np.ndarray:
        exchange("filled")
        try:
            return np.load(self._path, mmap_mode="r")
        except DAMAGES as error:
            raise UserError(
                f"{self._path}: this host does not see the file that the first host of TF_CONFIG wrote ({error}); all "
                "hosts need the same files in --run_dir and --cache_dir"
            ) from error


class _Nowhere:
    """An array that ignores assignments."""

    def __setitem__(self, rows: Any, values: Any) -> None: ...
