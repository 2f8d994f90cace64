"""Fréchet distance between two sets of features, and the statistics that it needs.

Heusel et al. (2017): FID = |μ_1 − μ_2|² + Tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^½). ``N`` images, ``D`` features of each.

No matrix square root is computed. With factors Σ_1 = L_1 L_1ᵀ and Σ_2 = L_2 L_2ᵀ, Tr (Σ_1 Σ_2)^½ is the sum of the
singular values of L_1ᵀ L_2 (its nuclear norm), and also the sum of the square roots of the eigenvalues of L_1ᵀ Σ_2 L_1.
If a set has fewer images than features, its centred rows are the factor, and only small matrices are decomposed. The
result is real and finite for every input.
"""

import dataclasses
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

    Every split into batches gives the same result up to rounding. The sums are of differences from the first batch's
    mean, so that a large mean costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: np.ndarray | None = None  # [D]
        self._sum: np.ndarray = np.zeros(0)  # [D]
        self._products: np.ndarray = np.zeros((0, 0))  # [D, D]

    def add(self, features: np.ndarray, counts: np.ndarray | None = None) -> None:
        """Adds a batch [B, D].

        Args:
            features: of the images.
            counts: [B] how often each image counts; None: once.

        Raises:
            UserError: features that are not finite, or of another width.
        """
        features = np.asarray(features, np.float64)
        _check_rows(features, self.count)
        if self._shift is None:
            self._shift = features.mean(axis=0)
            self._sum, self._products = np.zeros_like(self._shift), np.zeros((len(self._shift),) * 2)
        if features.shape[1] != len(self._shift):
            raise UserError(f"features of width {features.shape[1]} and {len(self._shift)} cannot be combined")
        centred = features - self._shift
        self._sum += centred.sum(axis=0) if counts is None else counts @ centred
        if counts is not None:
            centred *= np.sqrt(counts)[:, None]
        # One symmetric rank-B update, half the work of a product.
        self._products = scipy.linalg.blas.dsyrk(1.0, centred.T, 1.0, self._products, trans=0, lower=0, overwrite_c=0)
        self.count += len(features) if counts is None else int(counts.sum())

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

    With Σ_1 = L Lᵀ (pivoted Cholesky, which also exists for singular matrices), Σ_1 Σ_2 has the eigenvalues of the
    symmetric Lᵀ Σ_2 L.

    Raises:
        UserError: shapes that do not fit, or numbers that are not finite.
    """
    _check(mean_1, cov_1, mean_2, cov_2)
    return Reference.of_gaussian(mean_1, cov_1).distance_to(mean_2, cov_2)


def frechet_distance_of_features(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """The same from features [N, D] and [M, D]; faster and more exact than from statistics if images are few."""
    larger, smaller = features_1, features_2
    if len(larger) < len(smaller):
        larger, smaller = smaller, larger
    return Reference.of_features(larger).distance(smaller)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """One side of a distance, prepared once for any number of others.

    Attributes:
        mean: [D] μ.
        trace: Tr Σ.
        factor: [D, rank] L with L Lᵀ = Σ.
    """

    mean: np.ndarray
    trace: float
    factor: np.ndarray

    @classmethod
    def of_gaussian(cls, mean: np.ndarray, covariance: np.ndarray) -> "Reference":
        """From μ [D] and Σ [D, D] over N − 1."""
        return cls(mean, float(np.trace(covariance)), _cholesky(covariance))

    @classmethod
    def of_features(cls, features: np.ndarray) -> "Reference":
        """From features [N, D], which may be memory-mapped: if N > D, they are read in blocks."""
        if len(features) > features.shape[1] or len(features) < 2:
            return cls.of_gaussian(*fit_gaussian(features))
        rows = _centred(features)
        return cls(rows.mean, float((rows.rows**2).sum()), rows.rows.T)

    def distance(self, features: np.ndarray, counts: np.ndarray | None = None) -> float:
        """Fréchet distance of a set from this one.

        Args:
            features: [M, D], may be memory-mapped.
            counts: [M] how often each image is in the set, 0 or more; None: once.

        Raises:
            UserError: fewer than two images, or features that have another width or are not finite.
        """
        width = len(self.mean)
        if features.shape[1] != width:
            raise UserError(f"features of width {features.shape[1]} and {width} cannot be compared")
        different = len(features) if counts is None else int(np.count_nonzero(counts))
        if different > width or different < 2:
            return self.distance_to(*fit_gaussian(features, counts))
        rows = _centred(features, counts)
        nuclear = _nuclear_norm(rows.rows @ self.factor)
        return self._assemble(rows.mean, float((rows.rows**2).sum()), nuclear)

    def distance_to(self, mean: np.ndarray, covariance: np.ndarray) -> float:
        """Fréchet distance of a Gaussian, μ [D] and Σ [D, D], from this one."""
        if 2 * self.factor.shape[1] <= len(mean):  # few images: the product, whose squares cost digits, is avoided
            nuclear = _nuclear_norm(self.factor.T @ _cholesky(covariance))
        else:
            product = self.factor.T @ covariance @ self.factor
            eigenvalues = scipy.linalg.eigvalsh(product, overwrite_a=True, check_finite=False)
            nuclear = float(np.sqrt(np.maximum(eigenvalues, 0.0)).sum())
        return self._assemble(mean, float(np.trace(covariance)), nuclear)

    def _assemble(self, mean: np.ndarray, trace: float, nuclear: float) -> float:
        distance = float(((self.mean - mean) ** 2).sum() + self.trace + trace - 2.0 * nuclear)
        return max(distance, 0.0)  # rounding may make the distance of equal sets negative


def fit_gaussian(features: np.ndarray, counts: np.ndarray | None = None, block: int = 4096) -> Gaussian:
    """μ and Σ of features [N, D], which may be memory-mapped; ``counts`` [N]: how often each image counts."""
    moments = Moments()
    for start in range(0, len(features), block):
        part, often = features[start : start + block], None
        if counts is not None:
            often = counts[start : start + block]
            part, often = part[often > 0], often[often > 0]
        if len(part):
            moments.add(part, often)
        release(features)
    return Gaussian(moments.mean(), moments.covariance())


class _Centred(NamedTuple):
    """The mean [D] of features, and their scaled differences from it: rows R [N, D] with RᵀR = Σ."""

    mean: np.ndarray
    rows: np.ndarray


def _centred(features: np.ndarray, counts: np.ndarray | None = None) -> _Centred:
    if counts is not None:
        features, counts = features[counts > 0], counts[counts > 0]
    rows = np.array(features, np.float64)
    _check_rows(rows, 0)
    mean = np.average(rows, axis=0, weights=counts)
    rows -= mean
    if counts is None:
        rows /= np.sqrt(len(rows) - 1)
    else:
        rows *= np.sqrt(counts / (counts.sum() - 1))[:, None]
    return _Centred(mean, rows)


def _cholesky(cov: np.ndarray) -> np.ndarray:
    """L [D, rank] with L Lᵀ = Σ."""
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(cov, lower=1)
    lower = np.tril(factor)[:, :rank]
    unpermuted = np.empty_like(lower)
    unpermuted[pivots - 1] = lower
    return unpermuted


def _nuclear_norm(matrix: np.ndarray) -> float:
    if not matrix.size:  # a set of equal images has no factor
        return 0.0
    return float(scipy.linalg.svdvals(matrix, overwrite_a=True, check_finite=False).sum())


def _check_rows(features: np.ndarray, before: int) -> None:
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise UserError(f"image {before + row + 1} has features that are not finite: is the extractor right?")


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
