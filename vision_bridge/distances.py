"""Distances between features from one Gram matrix, computed in blocks of rows. ``N`` rows, ``D`` features."""

from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import ssyrk

from files.errors import UserError
from vision_bridge.scaling import Scaling, blocks


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
    """Inner products of columns; float64."""

    products: np.ndarray  # [D, D]
    sums: np.ndarray  # [D], of the columns
    rows: int  # N


def gram_matrix(features: np.ndarray, scaling: Scaling, kind: str) -> Gram:
    """Inner products of the scaled columns, and their sums, in one pass over the rows.

    Each block's product is a symmetric one in float32, half the work of a general one; blocks are added up in float64.

    Args:
        features: [N, D], perhaps memory-mapped.
        scaling: of the columns.
        kind: of the distance that will be computed from it. What that does not depend on is removed first, for accuracy
            in float32: for ``euclidean`` each row's mean, for ``correlation`` (about) each column's mean, for
            ``correlation`` and ``cosine`` (about) each column's size.
    """
    distance = DISTANCES[kind]
    width = features.shape[1]
    gram, sums = np.zeros((width, width)), np.zeros(width)
    first = scaling.apply(next(blocks(features, 256)))
    middle = first.mean(axis=0) if distance.centred else np.float32(0)
    size = np.abs(first - middle).max(axis=0)
    size[size == 0] = 1
    for block in blocks(features):
        block = scaling.apply(block)
        if distance.by_angle:
            block -= middle
            block /= size
        else:
            block -= block.mean(axis=1, keepdims=True)
        sums += block.sum(axis=0)
        gram += ssyrk(1.0, block.T, lower=1).T  # Fortran's lower triangle is the upper one here
    for start in range(0, width, 256):  # the lower triangle, tile by tile
        rows = slice(start, start + 256)
        gram[rows, :start] = gram[:start, rows].T
        gram[rows, rows] = np.triu(gram[rows, rows]) + np.triu(gram[rows, rows], 1).T
    return Gram(gram, sums, len(features))


def distances(gram: Gram, kind: str) -> np.ndarray:
    """Distances between columns, from their inner products.

    Args:
        gram: from ``gram_matrix`` for the same ``kind``.
        kind: one of ``DISTANCES``.

    Returns:
        [D, D] float32, symmetric, zero on the diagonal.

    Raises:
        UserError: a column has no direction: it is zero after scaling.
    """
    products, distance = gram.products, DISTANCES[kind]
    if distance.centred:
        products = products - np.outer(gram.sums, gram.sums / gram.rows)
    square = np.diag(products)
    if not distance.by_angle:
        result = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * products, 0))
    else:
        empty = np.flatnonzero(square <= 0)
        if len(empty):
            raise UserError(
                f"{len(empty)} feature(s) vary too little for float32 once scaled, the first is {empty[0]}: "
                f"there is no {kind} with others; use the scaling standardize, or leave them out"
            )
        norm = np.sqrt(square)
        result = np.clip(1 - products / norm[:, None] / norm[None], 0, 2)
    np.fill_diagonal(result, 0)
    return result.astype(np.float32)
