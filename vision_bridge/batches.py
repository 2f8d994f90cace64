"""Images or maps on disk → tf.data batches. ``B`` batch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.datasets import endless, from_batches


class ImageBatch(NamedTuple):
    """One batch; rows beyond the last are filler."""

    x: Any  # [B, ...] images or maps
    label: Any  # [B] int32
    mask: Any  # [B] float32, 1 for an example and 0 for filler


def _dataset(batches: Any, x: np.ndarray, size: int) -> tf.data.Dataset:
    specs = [
        tf.TensorSpec((size, *x.shape[1:]), x.dtype),
        tf.TensorSpec(size, tf.int32),
        tf.TensorSpec(size, tf.float32),
    ]
    return from_batches(batches, ImageBatch(*specs), prefetch=4)


def training_batches(x: np.ndarray, labels: np.ndarray, size: int, seed: int, first_step: int = 0) -> tf.data.Dataset:
    """The endless stream of full batches from ``first_step`` on; every row once an epoch, in an order of its own."""

    def order(epoch: int) -> tuple[np.ndarray]:
        return (np.random.default_rng([seed, epoch]).permutation(len(x)),)

    def batches() -> Iterator[ImageBatch]:
        ones = np.ones(size, np.float32)
        for (rows,) in endless(order, len(x), size, first_step):
            yield ImageBatch(x[rows], labels[rows].astype(np.int32), ones)

    return _dataset(batches, x, size)


def evaluation_batches(x: np.ndarray, labels: np.ndarray, size: int, start: int = 0) -> tf.data.Dataset:
    """Every row from ``start`` on, once and in order; filler are other rows, so that they too look like a batch."""

    def batches() -> Iterator[ImageBatch]:
        for first in range(start, len(x), size):
            rows = np.arange(first, first + size)
            inside = rows % len(x)
            yield ImageBatch(x[inside], labels[inside].astype(np.int32), (rows < len(x)).astype(np.float32))

    return _dataset(batches, x, size)
