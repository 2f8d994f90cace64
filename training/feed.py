"""Batches from a generator, which a thread prepares some batches ahead; leaving the ``with`` block ends the thread."""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np


class Spec(NamedTuple):
    """Shape and type of one field of a batch; None stands for a dimension that differs between batches."""

    shape: tuple[int | None, ...]
    dtype: str


def spec_of(batch: Any) -> Any:
    """The specs of a batch whose shapes never differ, in a tuple of its class."""
    return type(batch)(*(Spec(field.shape, field.dtype.name) for field in batch))


@dataclasses.dataclass(frozen=True)
class Batches:
    """A data set: batches that can be iterated over any number of times.

    Attributes:
        make: starts a new iteration; batches are NamedTuples of arrays.
        spec: of every batch, a NamedTuple of ``Spec``.
        ahead: number of batches to prepare in advance; 0: each batch is made on request, in the same thread. Batches
            that a model computes need 0: on several devices or hosts two computations cannot run at the same time.
    """

    make: Callable[[], Iterable[Any]]
    spec: Any
    ahead: int = 4

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def endless(
    draw: Callable[[int], tuple[np.ndarray, ...]], count: int, size: int, first_step: int
) -> Iterator[list[np.ndarray]]:
    """Endless epochs, split into batches of ``size``, from batch ``first_step`` on.

    Args:
        draw: epoch → arrays [count]; a pure function, so that any batch can be the first.
        count: examples in an epoch.
        size: examples in a batch; a batch may contain the end of one epoch and the start of the next.
        first_step: number of batches to skip.

    Yields:
        The same arrays, [size] each.
    """
    epoch, place = divmod(first_step * size, count)
    arrays = draw(epoch)
    while True:
        batch = [array[place : place + size] for array in arrays]
        place += size
        while len(batch[0]) < size:
            epoch, place = epoch + 1, size - len(batch[0])
            arrays = draw(epoch)
            batch = [np.concatenate([part, array[:place]]) for part, array in zip(batch, arrays, strict=True)]
        yield batch


def padded_rows(rows: Sequence[Any], length: int, value: int) -> np.ndarray:
    """Rows of token ids, each of at most ``length`` → [N, length] int32, padded on the right with ``value``."""
    tokens = np.full((len(rows), length), value, np.int32)
    for own, row in zip(tokens, rows, strict=True):
        own[: len(row)] = row
    return tokens


def filled_up(batch: Any, multiple: int) -> Any:
    """The batch, with copies of its last row as filler, so that the number of rows is a multiple of ``multiple``."""
    filler = -len(batch.mask) % multiple
    if not filler:
        return batch
    fields = (np.concatenate([field, np.repeat(field[-1:], filler, axis=0)]) for field in batch)
    batch = type(batch)(*fields)
    batch.mask[-filler:] = 0.0
    return batch


def filled_spec(spec: Any, multiple: int) -> Any:
    """The spec of batches after ``filled_up``."""
    rows = spec.mask.shape[0]
    rows = None if rows is None else rows + -rows % multiple
    return type(spec)(*(Spec((rows, *field.shape[1:]), field.dtype) for field in spec))


_END = object()


class _Failure(NamedTuple):
    error: BaseException


@contextmanager
def feed(batches: Batches, prepare: Callable[[Any], Any] = lambda batch: batch) -> Iterator[Iterator[Any]]:
    """An iterator over ``batches``, which a thread prepares; the thread ends with the block, also after an error.

    Args:
        batches: the data set; an error in it is raised at the place of its batch.
        prepare: is applied to every batch in that thread.
    """
    if not batches.ahead:
        with closing(prepare(batch) for batch in batches) as walk:
            yield walk
        return
    ready: queue.Queue = queue.Queue(maxsize=batches.ahead)
    stop = threading.Event()

    def work() -> None:
        last: Any = _END
        try:
            for batch in batches:
                ready.put(prepare(batch))
                if stop.is_set():
                    break
        except BaseException as error:
            last = _Failure(error)
        ready.put(last)

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        yield _walk(ready)
    finally:
        stop.set()
        while thread.is_alive():  # it may be waiting for space in the queue
            _empty(ready)
            thread.join(0.01)


def _walk(ready: queue.Queue) -> Iterator[Any]:
    while (item := ready.get()) is not _END:
        if isinstance(item, _Failure):
            raise item.error
        yield item


def _empty(ready: queue.Queue) -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        pass
