"""Distances by kernels: KID and CMMD, both maximum mean discrepancies. ``N`` real, ``M`` generated, ``D`` features.

MMD² = E k(x, x') + E k(y, y') − 2 E k(x, y), Gretton et al. (2012). Everything is float64.
"""

import math
from typing import NamedTuple

import numpy as np

from files.arrays import release
from files.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000  # Bińkowski et al. (2018)
SIGMA, SCALE = 10.0, 1000.0  # Jayasumana et al. (2024)
_BLOCK = 2048  # images
_LEAST = 4  # images of a set that the standard error of MMD² needs


class Estimate(NamedTuple):
    """A figure, and its standard error; None if it has none."""

    value: float
    deviation: float | None


def kernel_inception_distance(
    real: np.ndarray, fake: np.ndarray, seed: int = 0, subsets: int = SUBSETS, size: int = SUBSET_SIZE
) -> Estimate:
    """KID (Bińkowski et al. 2018): unbiased MMD² with kernel (xᵀy/D + 1)³, the mean over random subsets.

    The standard error is for a repetition with other N and M images and other subsets. It is the square root of the sum
    of two variances: of the MMD² of all images, by Hoeffding's decomposition, and of the mean over subsets given them.

    Args:
        real: [N, D].
        fake: [M, D].
        seed: of the subsets.
        subsets: their number; one is used if a subset has all images.
        size: images of each set in a subset, at most all of them.

    Raises:
        UserError: fewer than two images of a set.
    """
    size = min(size, len(real), len(fake))
    if size < 2:
        raise UserError(f"{size} image(s) are too few for KID: at least two of either set")
    if size == len(real) == len(fake):
        subsets = 1
    rng = np.random.default_rng(seed)
    values, parts = [], []
    for _ in range(subsets):
        x, y = (_rows(part, rng.choice(len(part), size, replace=False)) for part in (real, fake))
        kernels = _Kernels(_cubic(x, x), _cubic(y, y), _cubic(x, y))
        values.append(_unbiased(kernels))
        if size >= _LEAST:
            parts.append(_variances(kernels))
    if not parts or not (subsets > 1 or size == len(real) == len(fake)):
        return Estimate(float(np.mean(values)), None)
    variance = _Variances._make(np.mean(parts, axis=0)).of_estimate(len(real), len(fake))
    if subsets > 1:
        variance += float(np.var(values, ddof=1)) / subsets
    error = math.sqrt(variance)
    rounding = 1e-12 * (float(np.mean(np.abs(kernels.xy))) + abs(values[0]))
    return Estimate(float(np.mean(values)), error if error > rounding else None)


class _Kernels(NamedTuple):
    """k(x, x') [n, n], k(y, y') [n, n], k(x, y) [n, n]."""

    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray


class _Variances(NamedTuple):
    """The parts of MMD²'s variance by Hoeffding's decomposition: from single images, and from pairs.

    Attributes:
        x: variance of E k(x, x') − E k(x, y) over x.
        y: variance of E k(y, y') − E k(x, y) over y.
        xx, yy, xy: variances of the kernels less what single images explain.
    """

    x: float
    y: float
    xx: float
    yy: float
    xy: float

    def of_estimate(self, n: int, m: int) -> float:
        """Variance of the unbiased MMD² of n and m images."""
        single = 4.0 * self.x / n + 4.0 * self.y / m
        pairs = 2.0 * self.xx / (n * (n - 1)) + 2.0 * self.yy / (m * (m - 1)) + 4.0 * self.xy / (n * m)
        # For equal distributions ``single`` is 0 and its estimate may be below 0; the sum must stay a variance.
        return max(single, -0.5 * pairs) + pairs


def _unbiased(k: _Kernels) -> float:
    count = len(k.xx)
    within = sum((part.sum() - np.trace(part)) / (count * (count - 1)) for part in (k.xx, k.yy))
    return float(within - 2.0 * k.xy.mean())


def _variances(k: _Kernels) -> _Variances:
    """Unbiased up to O(1/n²): the pairs' part of the variance of single images' means is subtracted."""
    n = len(k.xx)
    xx, yy, xy = _centred_within(k.xx), _centred_within(k.yy), _centred_between(k.xy)
    pairs = (n - 2) / (n - 1) ** 2
    single = []
    for within, between, tau in ((k.xx, k.xy.mean(axis=1), xx), (k.yy, k.xy.mean(axis=0), yy)):
        means = (within.sum(axis=1) - np.diag(within)) / (n - 1) - between
        single.append(float(np.var(means, ddof=1)) - tau * pairs - xy / n)
    return _Variances(single[0], single[1], xx, yy, xy)


def _centred_within(kernel: np.ndarray) -> float:
    """E (k − E k(x, ·) − E k(·, x') + E k)² of different images of one set, unbiased (Székely & Rizzo 2014, 3.1)."""
    n = len(kernel)
    part = kernel.copy()
    np.fill_diagonal(part, 0.0)
    sums = part.sum(axis=1)
    part -= sums[:, None] / (n - 2)
    part -= sums / (n - 2)
    part += sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(part, 0.0)
    return float((part * part).sum() / (n * (n - 3)))


def _centred_between(kernel: np.ndarray) -> float:
    """The same for images of two sets."""
    part = kernel - kernel.mean(axis=1, keepdims=True)
    part -= part.mean(axis=0)
    return float((part * part).sum() / ((kernel.shape[0] - 1) * (kernel.shape[1] - 1)))


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    kernel = x @ y.T
    kernel /= x.shape[1]
    kernel += 1.0
    return kernel * kernel * kernel


def _rows(features: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    return np.asarray(features[rows], np.float64)


def cmmd(real: np.ndarray, fake: np.ndarray) -> float:
    """CMMD (Jayasumana et al. 2024): 1000 MMD² with kernel exp(−|x − y|²/(2·10²)), as in its authors' code.

    All pairs count, also those of an image with itself. Published numbers use features of CLIP ViT-L/14@336, each
    divided by its norm.

    Args:
        real: [N, D] features.
        fake: [M, D] features.

    Raises:
        UserError: no image in a set.
    """
    if not len(real) or not len(fake):
        raise UserError("a set without images has no CMMD")
    shift = np.asarray(np.mean(real, axis=0, dtype=np.float64))  # distances do not depend on it, their rounding does
    within = _mean_gaussian(real, real, shift) + _mean_gaussian(fake, fake, shift)
    return SCALE * (within - 2.0 * _mean_gaussian(real, fake, shift))


def _mean_gaussian(x: np.ndarray, y: np.ndarray, shift: np.ndarray) -> float:
    """Mean of exp(−|x − y|²/(2σ²)) over all pairs; if x is y, each pair is computed once."""
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        a = _rows(x, slice(start, start + _BLOCK)) - shift
        for other in range(start if x is y else 0, len(y), _BLOCK):
            b = _rows(y, slice(other, other + _BLOCK)) - shift
            square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2.0 * (a @ b.T)
            part = float(np.exp(np.minimum(square / (-2.0 * SIGMA**2), 0.0)).sum())
            total += part * (2.0 if x is y and other > start else 1.0)
        for array in (x, y):
            release(array)
    return total / (len(x) * len(y))
