"""Points → pixels. ``D`` points, ``H``×``W`` the image."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def bins(place: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Divides the image into H × W equal cells."""
    return np.minimum(np.floor(place * grid), grid - 1).astype(np.int64)


def points(place: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The author's cells: the last row and column hold only points on the far sides of the rectangle."""
    return np.floor(place * (grid - 1)).astype(np.int64)


def assignment(place: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A pixel for every feature, with the least sum of squared distances."""
    centers = np.stack(np.unravel_index(np.arange(grid.prod()), grid), axis=1) + 0.5
    _, chosen = linear_sum_assignment(cdist(place * grid, centers, "sqeuclidean"))
    return np.stack(np.unravel_index(chosen, grid), axis=1).astype(np.int64)


class PixelRule(NamedTuple):
    """How points become pixels.

    Attributes:
        pixels: (place [D, 2] in 0 … 1, downwards and to the right; H and W [2]) → row and column [D, 2].
        one_each: whether every feature needs a pixel of its own.
    """

    pixels: Callable[[np.ndarray, np.ndarray], np.ndarray]
    one_each: bool = False


PIXELS = {"bins": PixelRule(bins), "points": PixelRule(points), "assignment": PixelRule(assignment, one_each=True)}
