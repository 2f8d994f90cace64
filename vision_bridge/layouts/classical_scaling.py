"""Points in the plane from the leading eigenvectors of a centred kernel: classical scaling and kernel PCA.

``D`` features.
"""

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from vision_bridge.layouts.distance_rows import DistanceRows


def principal_coordinates(distances: np.ndarray | DistanceRows) -> np.ndarray:
    """Classical scaling (Torgerson 1952): [D, D] → [D, 2]; for Euclidean distances, the principal components."""
    if isinstance(distances, DistanceRows):
        return _leading(distances.kernel())
    kernel = np.square(distances, dtype=np.float32)
    kernel *= -0.5  # in place: a copy for 20,000 features takes 1.6 GB
    return _leading(_centred(kernel))


def principal_coordinates_of_few(distances: np.ndarray) -> np.ndarray:
    """The same in float64, of any number of features: [D, D] → [D, 2]. A single feature lies at the origin."""
    kernel = _centred(-0.5 * np.square(distances, dtype=np.float64))
    values, vectors = np.linalg.eigh(kernel)  # ``eigsh`` needs at least three features
    points = np.zeros((len(kernel), 2))
    leading = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    points[:, : leading.shape[1]] = leading
    return points


def kernel_principal_components(distances: np.ndarray) -> np.ndarray:
    """Kernel PCA with a Gaussian whose width is the median distance: [D, D] → [D, 2]."""
    square = np.square(distances, dtype=np.float32)
    return _leading(_centred(np.exp(-square / np.median(square))))


def _centred(kernel: np.ndarray) -> np.ndarray:
    """Centres a symmetric kernel, in place."""
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    return kernel


def _leading(kernel: np.ndarray | LinearOperator) -> np.ndarray:
    """The two leading coordinates of a symmetric kernel, with signs that make each axis' largest entry positive."""
    start = np.random.default_rng(0).standard_normal((kernel.shape[0],)).astype(kernel.dtype)
    values, vectors = eigsh(kernel, k=2, which="LA", v0=start)
    vectors = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0))
    return vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), (0, 1)])
