"""Images or maps on disk → batches. ``B`` batch."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from training.feed import Batches, Spec, endless


class ImageBatch(NamedTuple):
    """One batch; rows beyond the last are filler."""

    x: Any  # [B, ...] images or maps
    label: Any  # [B] int32, or float32 if the labels are floats
    mask: Any  # [B] float32, 1 for an example and 0 for filler


def _batches(make: Callable[[], Iterator[ImageBatch]], x: np.ndarray, labels: np.ndarray, size: int) -> Batches:
    label = Spec((size,), _type_of(labels))
    return Batches(make, ImageBatch(Spec((size, *x.shape[1:]), x.dtype.name), label, Spec((size,), "float32")))


def _type_of(labels: np.ndarray) -> str:
    return "float32" if labels.dtype.kind == "f" else "int32"


def training_batches(x: np.ndarray, labels: np.ndarray, size: int, seed: int, first_step: int = 0) -> Batches:
    """Endless full batches from ``first_step`` on: every row once an epoch, each epoch in a new order."""

    def order(epoch: int) -> tuple[np.ndarray]:
        return (np.random.default_rng([seed, epoch]).permutation(len(x)),)

    def batches() -> Iterator[ImageBatch]:
        ones = np.ones(size, np.float32)
        for (rows,) in endless(order, len(x), size, first_step):
            yield ImageBatch(x[rows], labels[rows].astype(_type_of(labels)), ones)

    return _batches(batches, x, labels, size)


def evaluation_batches(x: np.ndarray, labels: np.ndarray, size: int, start: int = 0) -> Batches:
    """Every row from ``start`` on, once and in order; filler are copies of other rows, so that a batch looks usual."""

    def batches() -> Iterator[ImageBatch]:
        for first in range(start, len(x), size):
            rows = np.arange(first, first + size)
            inside = rows % len(x)
            yield ImageBatch(x[inside], labels[inside].astype(_type_of(labels)), (rows < len(x)).astype(np.float32))

    return _batches(batches, x, labels, size)
