"""Grids with one feature in each cell, and the places of the cells on an image.

``D`` features, ``R`` × ``C`` grid, ``H`` × ``W`` image.
"""

import math

import numpy as np

from files.errors import UserError


def check_cells(count: int, shape: tuple[int, int]) -> None:
    """Raises UserError unless an image of ``shape`` (H, W) has a pixel for each of ``count`` features."""
    height, width = shape
    if height * width < count:
        raise UserError(
            f"{height}×{width} = {height * width} pixels are too few to give each of {count} features its own; a "
            f"square of {math.isqrt(count - 1) + 1} is enough"
        )


def grid_shape(count: int, shape: tuple[int, int]) -> tuple[int, int]:
    """The smallest grid with ``count`` cells or more and about the proportions of the image.

    On a square image it has ⌈√D⌉ columns. If the image has as many pixels as features, the grid is the image.

    Args:
        count: D, 1 or more.
        shape: H, W.

    Returns:
        R, C: R ≤ H, C ≤ W; only the last row may have cells without a feature.

    Raises:
        UserError: the image has too few pixels.
    """
    check_cells(count, shape)
    height, width = shape
    columns = math.isqrt(-(-count * width // height) - 1) + 1  # the first number whose square reaches D·W / H
    columns = min(max(columns, -(-count // height)), width)
    rows = -(-count // columns)
    return rows, -(-count // rows)


def pixels_of_cells(cells: np.ndarray, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """The pixel at the middle of each cell, if the grid is stretched over the whole image.

    Args:
        cells: [D], counted row by row.
        grid: R, C.
        shape: H, W with R ≤ H and C ≤ W, so that no two cells share a pixel.

    Returns:
        [D, 2] int64 row and column.
    """
    places = np.stack(np.divmod(cells, grid[1]), axis=1)
    return (2 * places + 1) * np.array(shape) // (2 * np.array(grid))


def points_of_pixels(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[D, 2] row and column → [D, 2] float64 x to the right and y upwards of the pixels' middles, in pixels."""
    rows, columns = pixels.T
    return np.stack([columns + 0.5, shape[0] - rows - 0.5], axis=1)


def pixels_of_points(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of ``points_of_pixels``: [D, 2] int64."""
    x, y = points.T
    return np.stack([np.floor(shape[0] - y), np.floor(x)], axis=1).astype(np.int64)


def frame(shape: tuple[int, int]) -> np.ndarray:
    """Corners [4, 2] of an image (H, W) in the plane of ``points_of_pixels``, counter-clockwise."""
    height, width = shape
    return np.array([[0.0, 0], [width, 0], [width, height], [0, height]])
