"""IGTD (Zhu et al. 2021): every feature has its own cell of a grid, and similar features lie close together.

The distances between all pairs of features are ranked, and so are the distances between all pairs of cells. Features
are swapped until no swap makes the two matrices of ranks more similar. ``D`` features, ``R`` × ``C`` grid.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

MOST = 4096  # features; a step takes .6 ms for 1,024 features, 2 ms for 2,304, 18 ms for 4,096; a round has D steps
MAX_STEPS = 30_000  # this and the next two are those of the authors' example
WINDOW = 300  # steps over which the decrease is measured
TOLERANCE = 1e-5  # the search ends when the window's relative decrease is smaller


class Arrangement(NamedTuple):
    """Features on cells."""

    order: np.ndarray  # [D] int64, the feature on each cell
    errors: list[float]  # before the first step and after each


def igtd(distances: np.ndarray, grid: tuple[int, int], seed: int) -> np.ndarray:
    """The cell of each feature; the error is the squared difference of ranks (the second of the paper's two).

    Args:
        distances: [D, D], symmetric.
        grid: R, C; the first D cells are used, row by row.
        seed: of the order in which features are considered for the first time.

    Returns:
        [D] int64 cells, counted row by row.
    """
    cells = np.stack(np.divmod(np.arange(len(distances)), grid[1]), axis=1)
    between_cells = cdist(cells, cells, "sqeuclidean")  # whole numbers: equal distances are exactly equal
    with threadpool_limits(1):  # a step is short and limited by memory: threads would wait for one another
        order = arrange(_centred(ranks(distances)), _centred(ranks(between_cells)), seed).order
    return np.argsort(order)


def ranks(distances: np.ndarray) -> np.ndarray:
    """[D, D] distances → [D, D] float64 ranks among all pairs, from 1; equal distances share their mean rank.

    The diagonal is 0.
    """
    pairs = np.tril_indices(len(distances), -1)
    result = np.zeros(distances.shape)
    result[pairs] = rankdata(distances[pairs])
    return result + result.T


def _centred(rank: np.ndarray) -> np.ndarray:
    """Ranks as −½ … ½ in float32, for accuracy: a common shift and scale of both matrices changes no decision."""
    pairs = max(len(rank) * (len(rank) - 1) // 2, 1)
    result = ((rank - (pairs + 1) / 2) / pairs).astype(np.float32)
    np.fill_diagonal(result, 0)
    return result


def arrange(source: np.ndarray, target: np.ndarray, seed: int) -> Arrangement:
    """Swaps rows and columns of ``source`` until no swap brings it nearer to ``target``.

    Each step takes the feature that was not considered for the longest time, and swaps it with the feature that lowers
    the error most, if any does. The error is Σ_{i>j} (source_ij − target_ij)². The sum of both squares is constant, so
    only Σ source_ij·target_ij is updated, and a step needs two products of a matrix and a vector.

    Args:
        source, target: [D, D], symmetric, zero on the diagonal.
        seed: of the order in which features are considered for the first time.
    """
    source, count = source.copy(), len(source)
    order = np.arange(count)
    considered = np.random.default_rng(seed).permutation(count) - count  # the step; below 0 before the first time
    matched = np.einsum("ij,ij->i", source, target, dtype=np.float64)
    errors = [float(np.square(source - target, dtype=np.float64).sum() / 2)]
    for step in range(MAX_STEPS if count > 1 else 0):
        one = int(considered.argmin())
        other = _best_partner(source, target, matched, one)
        decrease = _decrease(source, target, one, other)
        considered[one] = step
        if decrease > 0:
            considered[other] = step
            both, swapped = [one, other], [other, one]
            matched -= _products(source, target, both).sum(axis=0)
            source[both] = source[swapped]
            source[:, both] = source[:, swapped]
            matched += _products(source, target, both).sum(axis=0)
            matched[both] = _products(source, target, both).sum(axis=1)
            order[both] = order[swapped]
        errors.append(errors[-1] - max(decrease, 0.0))
        if step >= WINDOW and errors[-WINDOW - 1] - errors[-1] <= TOLERANCE * errors[-WINDOW - 1]:
            break
    return Arrangement(order, errors)


def _products(source: np.ndarray, target: np.ndarray, rows: list[int]) -> np.ndarray:
    """[rows, D] float64 products of some rows of both matrices."""
    return np.multiply(source[rows], target[rows], dtype=np.float64)


def _best_partner(source: np.ndarray, target: np.ndarray, matched: np.ndarray, one: int) -> int:
    """The feature whose swap with ``one`` raises Σ source·target most; ``matched`` are the sums of each row."""
    gains = source @ target[one] + target @ source[one] - matched - matched[one] + 2 * source[one] * target[one]
    gains[one] = -np.inf
    return int(gains.argmax())


def _decrease(source: np.ndarray, target: np.ndarray, one: int, other: int) -> float:
    """The decrease of the error by the swap; in float64, so that rounding never makes the error rise."""
    here = source[other].astype(np.float64) - source[one]
    there = target[one].astype(np.float64) - target[other]
    return 2 * float(here @ there + 2 * float(source[one, other]) * float(target[one, other]))
