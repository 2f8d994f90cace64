"""Distances between features, computed in blocks of rows. ``N`` rows, ``D`` features, ``P`` pairs of features.

All distances follow from one Gram matrix. (If it is much larger than the columns, ``DistanceRows`` computes its rows
when they are read.) A distance that is small compared with the columns is a difference of nearly equal numbers, so such
pairs are computed again, from the differences of their columns. Every distance has a relative error below 1e-5
(tests/test_hard_columns.py).

The Gram matrix is float64: sums of thousands of products in float32 are exact to 1e-6, too little for columns that
correlate by .9 or more. Computing these again would cost more than the half of the time that float32 saves.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.blas import dsyrk

from vision_bridge.layouts.scaling import Scaling, as_matrix, blocks
from vision_bridge.layouts.standard_columns import DISTANCES, StandardColumns, check_directions, prepare

TILE = 256  # rows of a matrix [D, D] that are computed at a time
WIDEST = 16_000  # columns of a matrix below 2 GiB: with a larger one OpenBLAS' dsyrk on two threads crashes
NEAR = 1e-8  # 1 − cos, or of euclidean distances d² / (|a|² + |b|²), below which a pair is computed again


class Gram(NamedTuple):
    """Inner products of columns, after means were subtracted; float64."""

    products: np.ndarray  # [D, D]
    sums: np.ndarray  # [D], of the columns
    rows: int  # N
    means: np.ndarray | float = 0.0  # [D] that were subtracted


def gram_matrix(features: Any, scaling: Scaling, kind: str) -> Gram:
    """Inner products of the scaled columns about their means, and their sums, in one pass over the rows.

    Args:
        features: [N, D], perhaps memory-mapped or CSR.
        scaling: of the columns.
        kind: of the distance that will be computed from it; see ``prepare``.
    """
    return _gram(features, prepare(features, scaling, kind))


def _gram(features: Any, prepared: StandardColumns) -> Gram:
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
    """The terms of the distance of two columns besides their inner product. Each [D] float64.

    Attributes:
        square: squared lengths of the columns or, for a centred distance, of the columns minus their means.
        sums: of the columns minus ``means``.
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
        """From the squared lengths [D] of the columns minus ``means``.

        Raises:
            UserError: a column has no direction: it is zero after scaling.
        """
        distance, means = DISTANCES[kind], np.broadcast_to(means, sums.shape)
        if distance.centred:
            square = square - sums**2 / rows
        elif distance.by_angle:
            square = square + means * (2 * sums + rows * means)
        if distance.by_angle:
            check_directions(square, kind)
        return cls(square, sums, means, rows, kind)

    def distances(self, products: np.ndarray, rows: slice) -> np.ndarray:
        """Distances [n, D] float32 of some columns from all; ``products`` [n, D]: after means were subtracted."""
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
        """[n, D] whether columns are nearly equal, by their distances ``part`` [n, D]."""
        if not DISTANCES[self.kind].by_angle:
            part = np.square(part) / (self.square[rows, None] + self.square)
        return part < NEAR


def _lengths(gram: Gram, kind: str) -> Lengths:
    return Lengths.of(np.diag(gram.products), gram.sums, gram.means, gram.rows, kind)


def distances(gram: Gram, kind: str) -> np.ndarray:
    """Distances between columns from their inner products alone; ``feature_distances`` is also exact for near columns.

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
    """Distances between the scaled columns, each with a relative error below 1e-5.

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


def _near(result: np.ndarray, lengths: Lengths) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (first [P], second [P]), first < second and ascending, whose columns are nearly equal."""
    found = []
    for start in range(0, len(result), TILE):
        rows = slice(start, start + TILE)
        first, second = np.nonzero(np.triu(lengths.near(result[rows], rows), start + 1))
        found.append((first + start, second))
    return tuple(np.concatenate(side) for side in zip(*found, strict=True))  # type: ignore[return-value]


def from_differences(
    features: Any, prepared: StandardColumns, kind: str, norm: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Distances of pairs [P] in float64.

    For columns p, q minus their means and of a length near 1, 1 − cos = (|p − q|² − (|p| − |q|)²) / (2 |p| |q|), where
    every term is as small as the distance. Means that are not exactly 0 are corrected by the sums.

    Args:
        norm: [D] approximate lengths of the columns; an error of them cancels.
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
