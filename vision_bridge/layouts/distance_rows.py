"""Distances between many features of few rows, a few rows of the matrix at a time. ``N`` rows, ``D`` features.

The matrix [D, D] of 20,000 features takes 3.2 GB in float64; their columns [D, N] of 500 rows take 80 MB. So distances
are not stored but computed whenever they are read.
"""

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from vision_bridge.layouts.distances import TILE, Lengths, from_differences
from vision_bridge.layouts.scaling import Scaling, as_matrix, blocks
from vision_bridge.layouts.standard_columns import DISTANCES, StandardColumns, prepare

WIDE = 8_000  # with more features, the matrix [D, D] is not kept: 0.5 GB in float64
SHARE = 1 / 8  # most rows, as a share of D
MOST_ROWS = 1_000  # by angle: the principal coordinates take D·N² operations an iteration


def suits(rows: int, width: int, kind: str) -> bool:
    """Whether distances of ``width`` features in ``rows`` rows are better computed when they are read."""
    return width > WIDE and rows <= SHARE * width and (rows <= MOST_ROWS or not DISTANCES[kind].by_angle)


class DistanceRows:
    """Distances between the scaled columns; ``rows[start:stop]`` is [stop − start, D] float32, as of an array [D, D].

    Each has a relative error below 1e-5, as in ``feature_distances``.
    """

    def __init__(self, features: Any, scaling: Scaling, kind: str) -> None:
        """Keeps the scaled columns, 8·N·D bytes.

        Args:
            features: [N, D], perhaps memory-mapped or CSR.
            scaling: of the columns.
            kind: one of ``DISTANCES``.

        Raises:
            UserError: a column has no direction: it is constant once scaled, or zero.
        """
        self._features = as_matrix(features)
        self._prepared: StandardColumns = prepare(self._features, scaling, kind)
        size = self._prepared.size
        parts = [self._prepared.standard(block).T for block in blocks(self._features, 256)]
        self._columns = np.ascontiguousarray(np.concatenate(parts, axis=1)) * size[:, None]  # [D, N] minus the means
        square = np.einsum("dn,dn->d", self._columns, self._columns)
        sums, mean = self._columns.sum(axis=1), self._prepared.mean
        self._lengths = Lengths.of(square, sums, mean, self._columns.shape[1], kind)

    def __len__(self) -> int:
        """D."""
        return len(self._columns)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Distances of consecutive columns from all, [n, D] float32."""
        start, stop, _ = rows.indices(len(self))
        result = np.empty((stop - start, len(self)), np.float32)
        for first in range(start, stop, TILE):
            tile = slice(first, min(first + TILE, stop))
            result[first - start : tile.stop - start] = self._tile(tile)
        return result

    def _tile(self, rows: slice) -> np.ndarray:
        result = self._lengths.distances(self._columns[rows] @ self._columns.T, rows)
        near = self._lengths.near(result, rows)
        near[np.arange(len(near)), np.arange(rows.start, rows.stop)] = False
        first, second = np.nonzero(near)
        if len(first):
            norm, kind = np.sqrt(self._lengths.square), self._lengths.kind
            result[first, second] = from_differences(
                self._features, self._prepared, kind, norm, first + rows.start, second
            )
        return result

    def kernel(self) -> LinearOperator:
        """−½·J·d²·J with J = 1 − 1/D, the matrix of classical scaling (Torgerson 1952), as a product with vectors.

        For Euclidean distances it is X·Xᵀ, where X are the columns minus their mean. For distances by angle,
        d² = (1 − G)² with G = U·Uᵀ of unit vectors: the matrix is J·(G − ½ G∘G)·J, and (G∘G)·v is
        diag(U·(Uᵀ·diag(v)·U)·Uᵀ).
        """
        distance, lengths = DISTANCES[self._lengths.kind], self._lengths
        vectors = self._columns
        if distance.centred:
            vectors = vectors - (lengths.sums / lengths.rows)[:, None]
        else:
            vectors = vectors + lengths.means[:, None]
        if distance.by_angle:
            vectors = vectors / np.sqrt(lengths.square)[:, None]

        def product(v: np.ndarray) -> np.ndarray:
            v = v.ravel() - v.mean()
            result = vectors @ (vectors.T @ v)
            if distance.by_angle:
                result -= 0.5 * np.einsum("dn,dn->d", vectors @ (vectors.T @ (v[:, None] * vectors)), vectors)
            return result - result.mean()

        return LinearOperator((len(self), len(self)), matvec=product, dtype=np.float64)
