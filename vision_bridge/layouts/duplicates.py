"""Columns of a matrix that are equal in every row. ``N`` rows, ``D`` columns."""

from typing import Any

import numpy as np

from vision_bridge.layouts.scaling import as_matrix, blocks


def equal_columns(features: Any) -> tuple[int, int] | None:
    """The first two columns that are equal in every row, or None.

    Every column has a code, a sum of its bits times random numbers modulo 2^64. After each block of rows, only columns
    stay whose code another column also has; they are few after the first block. The columns that stay are compared.

    Args:
        features: [N, D] without NaN, perhaps memory-mapped or CSR.
    """
    features = as_matrix(features)
    rng = np.random.default_rng(0)
    left, codes = np.arange(features.shape[1]), np.zeros(features.shape[1], np.uint64)
    for block in blocks(features, 256):
        numbers = block[:, left]
        bits = numbers.astype(np.int64) if numbers.dtype.kind in "iu" else numbers.astype(np.float64) + 0.0  # no −0
        factors = rng.integers(0, 2**64, (len(bits) + 1, 1), np.uint64)
        codes = codes * factors[0] + (bits.view(np.uint64) * factors[1:]).sum(axis=0, dtype=np.uint64)
        _, number, count = np.unique(codes, return_inverse=True, return_counts=True)
        left, codes = left[count[number] > 1], codes[count[number] > 1]
        if not len(left):
            return None
    first: dict[int, int] = {}  # code → the first column with this code
    pairs = [(first.setdefault(code, int(column)), int(column)) for column, code in zip(left, codes, strict=True)]
    return next((pair for pair in sorted(pairs) if pair[0] < pair[1] and _are_equal(features, *pair)), None)


def _are_equal(features: Any, first: int, second: int) -> bool:
    return all(np.array_equal(block[:, first], block[:, second]) for block in blocks(features, 64))
