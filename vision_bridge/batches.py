"""Images or maps on disk → batches. ``B`` batch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from training.feed import Batches, Spec, endless

_MIXING = 1  # tells the draws of mixtures from those of the order


class ImageBatch(NamedTuple):
    """One batch; rows beyond the last are filler."""

    x: Any  # [B, ...] images or maps
    label: Any  # [B] int32, or float32 if the labels are floats
    mask: Any  # [B] float32, 1 for an example and 0 for filler


class MixedBatch(NamedTuple):
    """A batch of mixtures of two rows: x = share · x₁ + (1 − share) · x₂."""

    x: Any  # [B, ...]
    label: Any  # [B] of the rows x₁
    mask: Any  # [B] float32
    other: Any  # [B] of the rows x₂, of the type of ``label``
    share: Any  # [B] float32, at least 1/2


def _specs(x: np.ndarray, labels: np.ndarray, size: int) -> ImageBatch:
    label = Spec((size,), _type_of(labels))
    return ImageBatch(Spec((size, *x.shape[1:]), x.dtype.name), label, Spec((size,), "float32"))


def _type_of(labels: np.ndarray) -> str:
    return "float32" if labels.dtype.kind == "f" else "int32"


def training_batches(
    x: np.ndarray, labels: np.ndarray, size: int, seed: int, first_step: int = 0, mixup: float = 0.0
) -> Batches:
    """Endless full batches from ``first_step`` on: every row once an epoch, each epoch in a new order.

    With ``mixup``, the α of Zhang et al. 2018, every row is mixed with a row of the same batch (``MixedBatch``).
    """

    def order(epoch: int) -> tuple[np.ndarray]:
        return (np.random.default_rng([seed, epoch]).permutation(len(x)),)

    def batches() -> Iterator[ImageBatch]:
        ones = np.ones(size, np.float32)
        for (rows,) in endless(order, len(x), size, first_step):
            yield ImageBatch(x[rows], labels[rows].astype(_type_of(labels)), ones)

    def mixed() -> Iterator[MixedBatch]:
        for step, batch in enumerate(batches(), first_step):
            yield _mixed(batch, mixup, np.random.default_rng([seed, step, _MIXING]))

    specs = _specs(x, labels, size)
    if mixup:
        return Batches(mixed, MixedBatch(*specs, specs.label, specs.mask))
    return Batches(batches, specs)


def _mixed(batch: ImageBatch, alpha: float, draws: np.random.Generator) -> MixedBatch:
    """Every row with another one. Shares below 1/2 are not needed: they exchange the two rows."""
    size = len(batch.mask)
    partner = draws.permutation(size)
    share = draws.beta(alpha, alpha, size).astype(np.float32)
    share = np.maximum(share, 1 - share)
    weight = share.reshape(-1, *[1] * (batch.x.ndim - 1))
    x = weight * batch.x + (1 - weight) * batch.x[partner]
    return MixedBatch(x, batch.label, batch.mask, batch.label[partner], share)


def evaluation_batches(x: np.ndarray, labels: np.ndarray, size: int, start: int = 0) -> Batches:
    """Every row from ``start`` on, once and in order; filler are copies of other rows, so that a batch looks usual."""

    def batches() -> Iterator[ImageBatch]:
        for first in range(start, len(x), size):
            rows = np.arange(first, first + size)
            inside = rows % len(x)
            yield ImageBatch(x[inside], labels[inside].astype(_type_of(labels)), (rows < len(x)).astype(np.float32))

    return Batches(batches, _specs(x, labels, size))
