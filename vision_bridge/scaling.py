"""Columns of features on one scale, fitted on training rows. ``N`` rows, ``D`` features."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from files.errors import UserError

BLOCK = 4096  # rows in memory at a time


def blocks(features: np.ndarray, rows: int = BLOCK) -> Iterator[np.ndarray]:
    """A matrix [N, D], perhaps memory-mapped, as float32 blocks of so many rows."""
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], dtype=np.float32)


class Columns(NamedTuple):
    """Statistics of each column, from one pass over the rows; float64."""

    mean: np.ndarray  # [D]
    deviation: np.ndarray  # [D], divided by N
    low: np.ndarray  # [D]
    high: np.ndarray  # [D]


def describe(features: np.ndarray) -> Columns:
    """Mean, deviation and range of every column, in one pass.

    Raises:
        UserError: fewer than two rows, or columns that are not finite or constant; names the first.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"features of shape {features.shape}: [N, D] with at least two rows is needed")
    shift = np.asarray(features[0], dtype=np.float64)  # sums are taken about one row, or large means would cancel
    total, square = np.zeros_like(shift), np.zeros_like(shift)
    low, high = shift.copy(), shift.copy()
    for block in blocks(features, 256):  # small enough for the cache
        if not np.isfinite(block).all():
            column = int(np.flatnonzero(~np.isfinite(block).all(axis=0))[0])
            raise UserError(f"feature {column} is not finite in some rows: fix or leave out the column")
        shifted = block - shift
        total += shifted.sum(axis=0)
        square += np.einsum("nd,nd->d", shifted, shifted)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    constant = np.flatnonzero(high == low)
    if len(constant):
        raise UserError(
            f"{len(constant)} constant feature(s), the first is {constant[0]} with value {low[constant[0]]:g}: "
            "they carry no information and have no distance to others; leave them out"
        )
    mean = total / len(features)
    return Columns(shift + mean, np.sqrt(np.maximum(square / len(features) - mean**2, 0)), low, high)


class Rule(NamedTuple):
    """How a scaling follows from the columns' statistics; ``logarithmic`` takes log(x + |min| + 1) first."""

    center: Callable[[Columns], np.ndarray]  # → [D]
    width: Callable[[Columns], np.ndarray]  # → [D]
    logarithmic: bool = False


def _greatest_logarithm(columns: Columns) -> np.ndarray:
    return np.zeros_like(columns.mean) + np.log1p(columns.high + np.abs(columns.low)).max()


SCALINGS = {
    "standardize": Rule(lambda columns: columns.mean, lambda columns: columns.deviation),
    "min_max": Rule(lambda columns: columns.low, lambda columns: columns.high - columns.low),
    # DeepInsight's second norm (Sharma et al. 2019): over the greatest logarithm of all columns
    "log": Rule(lambda columns: np.zeros_like(columns.mean), _greatest_logarithm, logarithmic=True),
}


class Scaling(NamedTuple):
    """``(g(x) − center) / width`` with g the identity, or the logarithm of what exceeds the minimum."""

    kind: str  # one of SCALINGS
    low: np.ndarray  # [D] float32
    center: np.ndarray  # [D] float32
    width: np.ndarray  # [D] float32

    def apply(self, block: np.ndarray) -> np.ndarray:
        """[n, D] → [n, D] float32, a new array."""
        if SCALINGS[self.kind].logarithmic:  # below the least of the training rows counts as the least
            block = np.log1p(np.maximum(block, self.low) + np.abs(self.low))
        block = block - self.center
        block /= self.width
        return block

    def invert(self, block: np.ndarray) -> np.ndarray:
        """The features of scaled ones."""
        block = block * self.width + self.center
        return np.expm1(block) - np.abs(self.low) if SCALINGS[self.kind].logarithmic else block


def fit_scaling(kind: str, columns: Columns) -> Scaling:
    """A scaling, one of ``SCALINGS``, from the statistics of the training rows."""
    rule = SCALINGS[kind]
    arrays = (columns.low, rule.center(columns), rule.width(columns))
    return Scaling(kind, *(array.astype(np.float32) for array in arrays))
