"""Fréchet distance between two sets of features, and the statistics it is made of.

Heusel et al. (2017): FID = |μ_1 − μ_2|² + Tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^½). ``N`` images, ``D`` features of each.

No matrix square root is ever taken. Tr (Σ_1 Σ_2)^½ is the sum of the square roots of the eigenvalues of the symmetric
Σ_1^½ Σ_2 Σ_1^½; with fewer images than features, it is the nuclear norm of the product of the two centred feature
matrices, which is small. Both are real and finite for every input.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from files.arrays import release
from files.errors import UserError


class Gaussian(NamedTuple):
    """Mean and covariance of features.

    Attributes:
        mean: [D] μ.
        covariance: [D, D] Σ, over N − 1.
    """

    mean: np.ndarray
    covariance: np.ndarray


class Moments:
    """Mean and covariance of features, added up batch by batch in float64.

    Any split into batches gives the same up to rounding: sums are taken about the first batch's mean, so that a large
    mean costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: np.ndarray | None = None  # [D]
        self._sum: np.ndarray = np.zeros(0)  # [D]
        self._products: np.ndarray = np.zeros((0, 0))  # [D, D]

    def add(self, features: np.ndarray) -> None:
        """Adds a batch [B, D].

        Raises:
            UserError: features that are not finite, or of another width.
        """
        features = np.asarray(features, np.float64)
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise UserError(f"image {self.count + row + 1} has features that are not finite: is the extractor right?")
        if self._shift is None:
            self._shift = features.mean(axis=0)
            self._sum, self._products = np.zeros_like(self._shift), np.zeros((len(self._shift),) * 2)
        if features.shape[1] != len(self._shift):
            raise UserError(f"features of width {features.shape[1]} and {len(self._shift)} cannot be combined")
        centred = features - self._shift
        self._sum += centred.sum(axis=0)
        # One symmetric rank-B update, half the work of a product.
        self._products = scipy.linalg.blas.dsyrk(1.0, centred.T, 1.0, self._products, trans=0, lower=0, overwrite_c=0)
        self.count += len(features)

    def mean(self) -> np.ndarray:
        """[D] μ."""
        assert self._shift is not None
        return self._shift + self._sum / self.count

    def covariance(self) -> np.ndarray:
        """[D, D] Σ, over N − 1.

        Raises:
            UserError: fewer than two images.
        """
        if self.count < 2:
            raise UserError(f"{self.count} image(s) have no covariance: at least two are needed")
        upper = np.triu(self._products)
        products = upper + np.triu(upper, 1).T
        mean = self._sum / self.count
        return (products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    """|μ_1 − μ_2|² + Tr(Σ_1) + Tr(Σ_2) − 2 Tr (Σ_1 Σ_2)^½ of two Gaussians; [D] and [D, D] float64.

    With Σ_1 = L Lᵀ (pivoted Cholesky, which singular matrices have too), the eigenvalues of Σ_1 Σ_2 are those of the
    symmetric Lᵀ Σ_2 L.

    Raises:
        UserError: shapes that do not fit, or numbers that are not finite.
    """
    _check(mean_1, cov_1, mean_2, cov_2)
    factor = _cholesky(cov_1)  # [D, rank]
    eigenvalues = scipy.linalg.eigvalsh(factor.T @ cov_2 @ factor, overwrite_a=True, check_finite=False)
    return _assemble(mean_1, np.trace(cov_1), mean_2, np.trace(cov_2), np.sqrt(np.maximum(eigenvalues, 0.0)).sum())


def frechet_distance_of_features(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """The same from the features [N, D], [M, D] themselves; the faster and more exact way for few images."""
    few = min(len(features_1), len(features_2)) < features_1.shape[1]
    if not few or min(len(features_1), len(features_2)) < 2:
        return frechet_distance(*fit_gaussian(features_1), *fit_gaussian(features_2))
    one, two = _centred(features_1), _centred(features_2)
    x, y = _no_more_rows_than_features(one.rows), _no_more_rows_than_features(two.rows)
    nuclear = scipy.linalg.svdvals(x @ y.T, overwrite_a=True, check_finite=False).sum()
    return _assemble(one.mean, (x * x).sum(), two.mean, (y * y).sum(), nuclear)


def fit_gaussian(features: np.ndarray, block: int = 4096) -> Gaussian:
    """μ and Σ of features [N, D], which may be memory-mapped."""
    moments = Moments()
    for start in range(0, len(features), block):
        moments.add(features[start : start + block])
        release(features)
    return Gaussian(moments.mean(), moments.covariance())


class _Centred(NamedTuple):
    """The mean [D] of features, and rows [N, D] about it whose products sum to Σ."""

    mean: np.ndarray
    rows: np.ndarray


def _centred(features: np.ndarray) -> _Centred:
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    return _Centred(mean, (features - mean) / np.sqrt(len(features) - 1))


def _no_more_rows_than_features(rows: np.ndarray) -> np.ndarray:
    """Rows whose products have the same sum."""
    if len(rows) <= rows.shape[1]:
        return rows
    return scipy.linalg.qr(rows, mode="r", check_finite=False)[0][: rows.shape[1]]


def _cholesky(cov: np.ndarray) -> np.ndarray:
    """L [D, rank] with L Lᵀ = Σ."""
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(cov, lower=1)
    lower = np.tril(factor)[:, :rank]
    unpermuted = np.empty_like(lower)
    unpermuted[pivots - 1] = lower
    return unpermuted


def _assemble(mean_1: np.ndarray, trace_1: float, mean_2: np.ndarray, trace_2: float, cross: float) -> float:
    distance = float(((mean_1 - mean_2) ** 2).sum() + trace_1 + trace_2 - 2.0 * cross)
    return max(distance, 0.0)  # rounding may take equal sets just below


def _check(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> None:
    width = len(mean_1)
    if mean_2.shape != (width,) or cov_1.shape != (width, width) or cov_2.shape != (width, width):
        raise UserError(
            f"statistics of different dimensions: means {mean_1.shape} and {mean_2.shape}, covariances {cov_1.shape} "
            f"and {cov_2.shape}; were they made with the same features?"
        )
    for name, array in (("mean", mean_1), ("mean", mean_2), ("covariance", cov_1), ("covariance", cov_2)):
        if not np.isfinite(array).all():
            raise UserError(f"a {name} is not finite; compute the statistics again")
