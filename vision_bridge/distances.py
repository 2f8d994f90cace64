"""Distances between features, computed in blocks of rows. ``N`` rows, ``D`` features, ``P`` pairs of features.

One Gram matrix gives all of them. (Where it is much larger than the columns, ``DistanceRows`` computes its rows as
they are read.) A distance that is small beside the columns themselves is a difference of nearly equal numbers there,
so such pairs are computed again, from the differences of their columns. Every distance is within 1e-5 of itself
(tests/test_hard_columns.py).

The Gram matrix is one of float64: sums of thousands of products in float32 are exact to 1e-6, too little for columns
that correlate by .9 or more, and to compute those again costs more than the half of the time that float32 saves.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.blas import dsyrk

from files.errors import UserError
from vision_bridge.scaling import Scaling, as_matrix, blocks, describe, fit_scaling, moments, value_range

TILE = 256  # rows of a matrix [D, D] that are computed at a time
WIDEST = 16_000  # columns of a matrix below 2 GiB: with a larger one OpenBLAS' dsyrk on two threads ends the process
NEAR = 1e-8  # 1 − cos, or of euclidean distances d² / (|a|² + |b|²), below which a pair is computed again


class Distance(NamedTuple):
    """Which parts of two columns their distance depends on."""

    by_angle: bool = False  # only the directions: 1 − cos
    centred: bool = False  # only what remains without the columns' means


DISTANCES = {
    "euclidean": Distance(),
    "cosine": Distance(by_angle=True),
    "correlation": Distance(by_angle=True, centred=True),  # 1 − r
}


class Gram(NamedTuple):
    """Inner products of columns, perhaps about their means; float64."""

    products: np.ndarray  # [D, D]
    sums: np.ndarray  # [D], of the columns
    rows: int  # N
    means: np.ndarray | float = 0.0  # [D], that were subtracted


class Prepared(NamedTuple):
    """Columns ``mean + size · c`` with c of mean 0 and deviation 1, however far from 0 the features are.

    Attributes:
        scaling: features → c, or c's logarithm before it is standardised.
        middle, deviation: [D] of this logarithm; None: there is none.
        mean, size: [D] of the scaled columns, or of any others of the same distances.
    """

    scaling: Scaling
    middle: np.ndarray | None
    deviation: np.ndarray | None
    mean: np.ndarray
    size: np.ndarray

    def standard(self, block: np.ndarray) -> np.ndarray:
        """c [n, D] float64."""
        c = self.scaling.apply(block, np.float64)
        if self.middle is not None:
            c -= self.middle
            c /= self.deviation
        return c

    def columns(self, chosen: np.ndarray) -> "Prepared":
        """The same of some columns."""
        middle, deviation = (None if own is None else own[chosen] for own in (self.middle, self.deviation))
        return Prepared(self.scaling.of_columns(chosen), middle, deviation, self.mean[chosen], self.size[chosen])


def prepare(features: Any, scaling: Scaling, kind: str) -> Prepared:
    """Standardises the columns, whatever their scaling; it may read them twice.

    What the distance does not depend on is left out: for ``correlation`` means and sizes, for ``cosine`` the lengths.

    Raises:
        UserError: a column is constant once it is scaled.
    """
    width, middle = features.shape[1], None
    if scaling.kind == "standardize":
        return Prepared(scaling, None, None, np.zeros(width), np.ones(width))
    if scaling.logarithmic:
        above = scaling.about_low()
        span = above.apply(value_range(features)[1][None], np.float64)[0]
        _check_directions(span, kind)
        middle, size = moments((above.apply(block, np.float64) for block in blocks(features, 256)), 0 * span, span)
        mean, standard = middle + (scaling.least - scaling.center) / scaling.width, above
    else:
        columns = describe(features)
        mean = (columns.mean - scaling.center + (columns.mean_rest - scaling.rest)) / scaling.width
        size, standard = columns.deviation / scaling.width, fit_scaling("standardize", columns)
    distance, deviation = DISTANCES[kind], None if middle is None else size
    if distance.centred:
        mean, size = np.zeros(width), np.ones(width)
    elif distance.by_angle:
        length = np.hypot(mean, size)
        mean, size = mean / length, size / length
    return Prepared(standard, middle, deviation, mean, size)


def gram_matrix(features: Any, scaling: Scaling, kind: str) -> Gram:
    """Inner products of the scaled columns about their means, and their sums, in one pass over the rows.

    Args:
        features: [N, D], perhaps memory-mapped or CSR.
        scaling: of the columns.
        kind: of the distance that will be computed from it; see ``prepare``.
    """
    return _gram(features, prepare(features, scaling, kind))


def _gram(features: Any, prepared: Prepared) -> Gram:
    width = features.shape[1]
    gram, sums = np.zeros((width, width)), np.zeros(width)
    for block in blocks(features):
        c = prepared.standard(block)
        sums += c.sum(axis=0)
        _add_products(gram, c)
    for start in range(0, width, TILE):  # the lower triangle, tile by tile
        rows = slice(start, start + TILE)
        gram[rows, start:] *= np.outer(prepared.size[rows], prepared.size[start:])
        gram[rows, :start] = gram[:start, rows].T
        gram[rows, rows] = np.triu(gram[rows, rows]) + np.triu(gram[rows, rows], 1).T
    return Gram(gram, sums * prepared.size, features.shape[0], prepared.mean)


def _add_products(gram: np.ndarray, c: np.ndarray) -> None:
    """Adds cᵀc to the upper triangle of a matrix [D, D], in place."""
    if len(gram) <= WIDEST:  # half the work of a general product; Fortran's lower triangle is the upper one here
        dsyrk(1.0, c.T, beta=1.0, c=gram.T, overwrite_c=1, lower=1)
        return
    for start in range(0, len(gram), TILE):
        rows = slice(start, start + TILE)
        gram[rows, start:] += c[:, rows].T @ c[:, start:]


class Lengths(NamedTuple):
    """What the distance of two columns needs besides their inner product. Each [D] float64.

    Attributes:
        square: squared lengths that the distance is made of: of the columns, or of what exceeds their means.
        sums: of the columns about ``means``.
        means: that were subtracted.
        rows: N.
        kind: of the distance.
    """

    square: np.ndarray
    sums: np.ndarray
    means: np.ndarray
    rows: int
    kind: str

    @classmethod
    def of(cls, square: np.ndarray, sums: np.ndarray, means: np.ndarray | float, rows: int, kind: str) -> "Lengths":
        """From the squared lengths about the means [D].

        Raises:
            UserError: a column has no direction: it is zero after scaling.
        """
        distance, means = DISTANCES[kind], np.broadcast_to(means, sums.shape)
        if distance.centred:
            square = square - sums**2 / rows
        elif distance.by_angle:
            square = square + means * (2 * sums + rows * means)
        if distance.by_angle:
            _check_directions(square, kind)
        return cls(square, sums, means, rows, kind)

    def distances(self, products: np.ndarray, rows: slice) -> np.ndarray:
        """Distances [n, D] float32 of some columns from all, given their inner products about the means [n, D]."""
        distance, (square, sums, means, count, _) = DISTANCES[self.kind], self
        if distance.centred:
            inner = products - np.outer(sums[rows], sums / count)
        elif distance.by_angle:
            inner = products + (np.outer(sums[rows], means) + np.outer(means[rows], sums))
            inner += count * np.outer(means[rows], means)
        if distance.by_angle:
            length = np.sqrt(square)
            result = np.clip(1 - inner / np.outer(length[rows], length), 0, 2)
        else:
            apart = means[rows, None] - means
            total = square[rows, None] + square - 2 * products
            total += apart * (count * apart + 2 * (sums[rows, None] - sums))
            result = np.sqrt(np.maximum(total, 0))
        result[np.arange(len(result)), np.arange(len(square))[rows]] = 0
        return result.astype(np.float32)

    def near(self, part: np.ndarray, rows: slice) -> np.ndarray:
        """[n, D]: whether columns are nearly equal, of distances from ``distances``."""
        if not DISTANCES[self.kind].by_angle:
            part = np.square(part) / (self.square[rows, None] + self.square)
        return part < NEAR


def _lengths(gram: Gram, kind: str) -> Lengths:
    return Lengths.of(np.diag(gram.products), gram.sums, gram.means, gram.rows, kind)


def distances(gram: Gram, kind: str) -> np.ndarray:
    """Distances between columns, from their inner products alone; ``feature_distances`` is exact for near columns too.

    Args:
        gram: from ``gram_matrix`` for the same ``kind``.
        kind: one of ``DISTANCES``.

    Returns:
        [D, D] float32, symmetric, zero on the diagonal.

    Raises:
        UserError: a column has no direction: it is zero after scaling.
    """
    lengths, result = _lengths(gram, kind), np.empty(gram.products.shape, np.float32)
    for start in range(0, len(result), TILE):
        rows = slice(start, start + TILE)
        result[rows] = lengths.distances(gram.products[rows], rows)
    return result


def feature_distances(features: Any, scaling: Scaling, kind: str) -> np.ndarray:
    """Distances between the scaled columns, each within 1e-5 of itself.

    Args:
        features: [N, D], perhaps memory-mapped or CSR.
        scaling: of the columns.
        kind: one of ``DISTANCES``.

    Returns:
        [D, D] float32, symmetric, zero on the diagonal.

    Raises:
        UserError: a column has no direction: it is constant once scaled, or zero.
    """
    features = as_matrix(features)
    prepared = prepare(features, scaling, kind)
    gram = _gram(features, prepared)
    result, lengths = distances(gram, kind), _lengths(gram, kind)
    first, second = _near(result, lengths)
    if len(first):
        exact = from_differences(features, prepared, kind, np.sqrt(lengths.square), first, second)
        result[first, second] = result[second, first] = exact
    return result


def _check_directions(size: np.ndarray, kind: str) -> None:
    empty = np.flatnonzero(size <= 0)
    if len(empty):
        raise UserError(
            f"{len(empty)} feature(s) vary too little for float64 once scaled, the first is {empty[0]}: "
            f"there is no {kind} with others; use the scaling standardize, or leave them out"
        )


def _near(result: np.ndarray, lengths: Lengths) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (first [P], second [P]), first < second and ascending, whose columns are nearly equal."""
    found = []
    for start in range(0, len(result), TILE):
        rows = slice(start, start + TILE)
        first, second = np.nonzero(np.triu(lengths.near(result[rows], rows), start + 1))
        found.append((first + start, second))
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))  # type: ignore[return-value]


def from_differences(
    features: Any, prepared: Prepared, kind: str, norm: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Distances of pairs [P] in float64.

    For columns p, q about their means and of a length near 1, 1 − cos = (|p − q|² − (|p| − |q|)²) / (2 |p| |q|), whose
    terms are as small as the distance. What the means lack for 0 is removed from the sums.

    Args:
        norm: [D] about the columns' lengths; any error of it cancels.
        first, second: [P] columns of each pair, ``first`` ascending.
    """
    distance, used = DISTANCES[kind], np.union1d(first, second)
    prepared, norm = prepared.columns(used), norm[used] if distance.by_angle else np.ones(len(used))
    first, second = np.searchsorted(used, first), np.searchsorted(used, second)
    bounds = np.flatnonzero(np.diff(first, prepend=-1, append=len(used)))
    square, total = np.zeros(len(used)), np.zeros(len(used))
    apart, shift = np.zeros(len(first)), np.zeros(len(first))
    for block in blocks(features, 256):
        columns = np.ascontiguousarray(prepared.standard(block[:, used]).T)  # [U, n]
        columns *= (prepared.size / norm)[:, None]
        columns += (prepared.mean / norm)[:, None]
        square += np.einsum("un,un->u", columns, columns)
        total += columns.sum(axis=1)
        for start, stop in pairwise(bounds):
            difference = columns[second[start:stop]] - columns[first[start]]
            apart[start:stop] += np.einsum("pn,pn->p", difference, difference)
            shift[start:stop] += difference.sum(axis=1)
    if not distance.by_angle:
        return np.sqrt(apart)
    if distance.centred:
        square, apart = square - total**2 / features.shape[0], apart - shift**2 / features.shape[0]
    length = np.sqrt(square)
    p, q = length[first], length[second]
    longer = (square[first] - square[second]) / (p + q)
    return np.clip((apart - longer**2) / (2 * p * q), 0, 2)
