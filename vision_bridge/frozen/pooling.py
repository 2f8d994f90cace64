"""Averages of maps over a grid of cells. ``N`` maps of ``h``×``w``, ``K`` channels. Imports no Keras."""

import math

import numpy as np


def adaptive_pool_matrix(before: int, after: int) -> list[list[float]]:
    """[after, before] averages over ⌊i·n/m⌋ … ⌈(i+1)·n/m⌉, as PyTorch's adaptive pooling does; also enlarges."""
    rows = [[0.0] * before for _ in range(after)]
    for i in range(after):
        start, end = i * before // after, -(-(i + 1) * before // after)
        for j in range(start, end):
            rows[i][j] = 1 / (end - start)
    return rows


def side_within(shape: tuple[int, ...], columns: int) -> int:
    """Side of the largest square grid over maps [h, w, K] with at most ``columns`` values; 1 or more."""
    height, width, channels = shape
    return min(height, width, max(1, math.isqrt(columns // channels)))


def pooled(maps: np.ndarray, side: int, block: int = 256) -> np.ndarray:
    """Maps [N, h, w, K] → [N, side, side, K] float32, averaged over cells."""
    down, across = (np.array(adaptive_pool_matrix(size, side), np.float32) for size in maps.shape[1:3])
    result = np.empty((len(maps), side, side, maps.shape[-1]), np.float32)
    for start in range(0, len(maps), block):
        part = np.asarray(maps[start : start + block], np.float32)
        result[start : start + block] = np.einsum("ih,bhwk,jw->bijk", down, part, across, optimize=True)
    return result
