"""Nearest neighbours of features, and which features lie in which balls. ``D`` features of an image.

Squared distances are |x|² + |y|² − 2xᵀy, block by block, in float32 after a common mean is subtracted. The results are
still those of float64:

- distances to the neighbours and a few more are computed again in float64 from the differences; if float32 cannot tell
  which images are nearest, because many are equally near, the distances to all images are;
- whether a point lies in a ball is decided in float64 if float32 may be wrong, from the products of its row.

Memory is a few blocks for any number of images, and each pair's product is computed once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from files.arrays import release
from files.errors import UserError

_BLOCK = 2048  # images
_LARGEST = 1e36  # |x|²
_MORE = 5  # further neighbours whose distances are computed again


class BlockedFeatures:
    """Features [N, D], which may be memory-mapped, or some of their rows, as blocks minus a shift.

    Raises:
        UserError: features that are not finite, or whose squares float32 cannot hold.
    """

    def __init__(self, features: np.ndarray, rows: np.ndarray | None, shift: np.ndarray) -> None:
        self._features, self._rows, self._shift = features, rows, shift
        self.blocks = [slice(start, min(start + _BLOCK, len(self))) for start in range(0, len(self), _BLOCK)]
        self.squares = np.concatenate([(self.exact(rows) ** 2).sum(axis=1) for rows in self.blocks])
        bad = np.flatnonzero(~(self.squares < _LARGEST))
        if len(bad):
            raise UserError(
                f"image {bad[0] + 1} has features that are not finite, or too large: is the extractor right?"
            )

    def __len__(self) -> int:
        return len(self._features) if self._rows is None else len(self._rows)

    @property
    def width(self) -> int:
        """D."""
        return self._features.shape[1]

    def exact(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows [..., D] in float64."""
        part = self._part(rows).astype(np.float64)
        part -= self._shift
        return part

    def rough(self, rows: slice) -> np.ndarray:
        """Rows [..., D] in float32."""
        return (self._part(rows) - self._shift).astype(np.float32, copy=False)

    def _part(self, rows: slice | np.ndarray) -> np.ndarray:
        part = np.array(self._features[rows if self._rows is None else self._rows[rows]])
        release(self._features)
        return part


def points(*sets: np.ndarray, rows: Sequence[np.ndarray | None] = ()) -> list[BlockedFeatures]:
    """Sets of features minus a common shift: the mean of the first set, in float32, so that no set loses digits.

    Args:
        *sets: [N, D] features.
        rows: rows of each set; None, or left out: all.
    """
    which = rows or [None] * len(sets)
    raw = BlockedFeatures(sets[0], which[0], np.zeros(sets[0].shape[1], np.float32))
    mean = sum(raw.exact(part).sum(axis=0) for part in raw.blocks) / len(raw)
    return [
        BlockedFeatures(features, chosen, mean.astype(np.float32)) for features, chosen in zip(sets, which, strict=True)
    ]


class Near(NamedTuple):
    """Nearest neighbours in another set, or among the others of the same set.

    Attributes:
        square: [N, k] squared distances, ascending, float64.
        row: [N, k] rows of the neighbours.
    """

    square: np.ndarray
    row: np.ndarray


def nearest_others(a: BlockedFeatures, k: int) -> Near:
    """The k nearest other images of the same set, for each image of a set of more than k."""
    found = _Best(len(a), min(k + _MORE, len(a) - 1))
    for place, rows in enumerate(a.blocks):
        x = a.rough(rows)
        for cols in a.blocks[place:]:
            same = cols == rows
            square = _rough_squares(x, x if same else a.rough(cols), a.squares[rows], a.squares[cols])
            if same:
                np.fill_diagonal(square, np.inf)
            else:
                found.add(cols, rows, square.T)
            found.add(rows, cols, square)
    return _certain(a, a, found, k, others=True)


def nearest(a: BlockedFeatures, b: BlockedFeatures, k: int = 1) -> Near:
    """The k nearest images of b for each image of a; b has at least k."""
    found = _Best(len(a), min(k + _MORE, len(b)))
    for cols in b.blocks:
        y = b.rough(cols)
        for rows in a.blocks:
            found.add(rows, cols, _rough_squares(a.rough(rows), y, a.squares[rows], b.squares[cols]))
    return _certain(a, b, found, k, others=False)


class Inside(NamedTuple):
    """Which images lie in which balls, for a block of two sets.

    Attributes:
        rows, cols: the block.
        of_rows: for each kind of balls around the images of a: [block_a, block_b] whether the images of b are inside.
        of_cols: for each kind of balls around the images of b: [block_a, block_b] whether the images of a are inside.
    """

    rows: slice
    cols: slice
    of_rows: list[np.ndarray]
    of_cols: list[np.ndarray]


def inside(
    a: BlockedFeatures, b: BlockedFeatures, a_balls: Sequence[np.ndarray], b_balls: Sequence[np.ndarray]
) -> Iterator[Inside]:
    """Which images lie in which balls, block by block; an image on the edge, up to rounding, is inside.

    Args:
        a, b: the two sets.
        a_balls: squared radii [N] of the balls around the images of a; any number of kinds.
        b_balls: squared radii [M] of the balls around the images of b.
    """
    unit = _rounding(a.width, np.float32)
    for rows in a.blocks:
        x = a.rough(rows)
        for cols in b.blocks:
            square = _rough_squares(x, b.rough(cols), a.squares[rows], b.squares[cols])
            error = (unit * a.squares[rows, None]).astype(np.float32) + (unit * b.squares[cols]).astype(np.float32)
            limits = [ball[rows, None] for ball in a_balls] + [ball[cols][None] for ball in b_balls]
            low, high = square - error, np.add(square, error, out=error)
            found = [low <= limit.astype(np.float32) for limit in limits]
            unsure = np.zeros(len(x), bool)
            for yes, limit in zip(found, limits, strict=True):
                unsure |= (yes & (high >= limit.astype(np.float32))).any(axis=1)
            if unsure.any():
                which = np.flatnonzero(unsure) + rows.start
                surely = _exact_squares(a, b, which, cols)
                for yes, limit in zip(found, limits, strict=True):
                    yes[unsure] = surely <= np.broadcast_to(limit, yes.shape)[unsure]
            yield Inside(rows, cols, found[: len(a_balls)], found[len(a_balls) :])


def same_place(a: BlockedFeatures, b: BlockedFeatures, square: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[N] whether the images of a equal the ``rows`` of b, up to rounding; ``square``: their squared distances."""
    return square <= _rounding(a.width, np.float64) * (a.squares + b.squares[rows])


class _Best:
    """The smallest squared distances so far."""

    def __init__(self, count: int, keep: int, dtype: type = np.float32) -> None:
        self.square: np.ndarray = np.full((count, keep), np.inf, dtype)
        self.row = np.zeros((count, keep), np.int64)

    def add(self, rows: slice, cols: slice, square: np.ndarray) -> None:
        """Adds a block of squared distances [rows, cols]."""
        numbers: np.ndarray = np.broadcast_to(np.arange(cols.start, cols.stop), square.shape)
        worst = self.square[rows].max(axis=1)
        if np.isfinite(worst).all():
            square, numbers = _only_below(square, worst, cols.start)
        square = np.concatenate([self.square[rows], square], axis=1)
        numbers = np.concatenate([self.row[rows], numbers], axis=1)
        keep = self.square.shape[1]
        best = np.argpartition(square, keep - 1, axis=1)[:, :keep]
        self.square[rows], self.row[rows] = (np.take_along_axis(part, best, axis=1) for part in (square, numbers))


def _only_below(square: np.ndarray, limit: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The values below each row's limit, moved to the row's start, and their columns; the rest is infinity."""
    below = square < limit[:, None]
    if below.flags.c_contiguous:
        rows, cols = np.nonzero(below)
    else:  # a transposed block is searched in the order of the memory
        cols, rows = np.nonzero(below.T)
        order = np.argsort(rows, kind="stable")
        rows, cols = rows[order], cols[order]
    counts = np.bincount(rows, minlength=len(square))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(square), int(counts.max(initial=0)))
    found, numbers = np.full(shape, np.inf, square.dtype), np.zeros(shape, np.int64)
    found[rows, place], numbers[rows, place] = square[rows, cols], cols + first
    return found, numbers


def _certain(a: BlockedFeatures, b: BlockedFeatures, found: _Best, k: int, others: bool) -> Near:
    """The k nearest in float64 of the float32 candidates; of all images, for rows in which float32 may be wrong."""
    near = _measured_again(a, b, np.arange(len(a)), found.row, k)
    if found.row.shape[1] == len(b) - others:
        return near
    worst = found.square.max(axis=1).astype(np.float64)
    # |y|² is at most 2|x|² + 2|x − y|²; so the rounding of the distances that were not kept is bounded.
    error = 4.0 * _rounding(a.width, np.float32) * (a.squares + worst)
    furthest = near.square[:, -1]
    unsure = np.flatnonzero((worst - error <= furthest) & (furthest > 0.0))
    for start in range(0, len(unsure), _BLOCK):
        which = unsure[start : start + _BLOCK]
        best = _Best(len(which), found.row.shape[1], np.float64)
        for cols in b.blocks:
            square = _exact_squares(a, b, which, cols)
            if others:
                own = np.flatnonzero((which >= cols.start) & (which < cols.stop))
                square[own, which[own] - cols.start] = np.inf
            best.add(slice(0, len(which)), cols, square)
        near.square[which], near.row[which] = _measured_again(a, b, which, best.row, k)
    return near


def _measured_again(a: BlockedFeatures, b: BlockedFeatures, which: np.ndarray, candidates: np.ndarray, k: int) -> Near:
    """The k nearest of the candidates [n, …], in float64, for the rows ``which`` [n] of a."""
    square, row = np.empty((len(which), k)), np.empty((len(which), k), np.int64)
    step = max(1, 2**22 // (a.width * candidates.shape[1]))  # numbers: 32 MiB
    for start in range(0, len(which), step):
        rows = slice(start, start + step)
        among = candidates[rows]
        exact = ((a.exact(which[rows])[:, None] - b.exact(among)) ** 2).sum(axis=2)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        square[rows], row[rows] = (np.take_along_axis(part, order, axis=1) for part in (exact, among))
    return Near(square, row)


def _rough_squares(x: np.ndarray, y: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray) -> np.ndarray:
    square = x @ y.T
    square *= -2.0
    square += x_squares[:, None].astype(np.float32)
    square += y_squares.astype(np.float32)
    return square


def _exact_squares(a: BlockedFeatures, b: BlockedFeatures, which: np.ndarray, cols: slice) -> np.ndarray:
    """Squared distances [which, cols], minus a bound on their rounding in float64."""
    products = a.exact(which) @ b.exact(cols).T
    sums = a.squares[which, None] + b.squares[cols]
    return sums * (1.0 - _rounding(a.width, np.float64)) - 2.0 * products


def _rounding(width: int, dtype: type) -> float:
    """A bound on the rounding error of a squared distance, as a share of |x|² + |y|².

    Eight times the spread of D rounding errors, which covers the worst case of sums of a few hundred products.
    """
    return (4.0 * width**0.5 + 8.0) * float(np.finfo(dtype).eps)
