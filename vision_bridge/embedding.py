"""Distances between features → points in the plane, by one of several engines. ``D`` features."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import eigsh

from training.errors import UserError
from vision_bridge.tsne import affinities, check_perplexity, descend, kl_divergence
from vision_bridge.tsne_fft import interpolated

TSNE_ENGINES = ("tsne", "tsne_exact", "sklearn", "sklearn_exact", "opentsne")
ENGINES = (*TSNE_ENGINES, "kernel_pca", "pca")


def principal_coordinates(distances: np.ndarray) -> np.ndarray:
    """Classical scaling (Torgerson 1952): [D, D] → [D, 2], for Euclidean distances their principal components."""
    kernel = np.square(distances, dtype=np.float32) * -0.5
    return _leading(kernel)


def kernel_principal_components(distances: np.ndarray) -> np.ndarray:
    """Kernel PCA with a Gaussian of the median distance: [D, D] → [D, 2]."""
    square = np.square(distances, dtype=np.float32)
    return _leading(np.exp(-square / np.median(square)))


def _leading(kernel: np.ndarray) -> np.ndarray:
    """Two leading coordinates of a symmetric kernel about its mean; each axis' largest entry is positive."""
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    start = np.random.default_rng(0).standard_normal(len(kernel)).astype(kernel.dtype)
    values, vectors = eigsh(kernel, k=2, which="LA", v0=start)
    vectors = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0))
    return vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), (0, 1)])


def embed_features(
    distances: np.ndarray,
    engine: str,
    perplexity: float,
    init: str,
    seed: int,
    compiled: Callable[[Callable], Callable] = lambda function: function,
    on_progress: Callable[[int, float], None] = lambda step, divergence: None,
) -> tuple[np.ndarray, float]:
    """Points whose neighbours are the features' neighbours.

    Args:
        distances: [D, D] float32.
        engine: ``tsne`` (ours), ``tsne_exact`` (ours over all pairs, for accelerators), ``sklearn`` (Barnes-Hut),
            ``sklearn_exact``, ``opentsne``, ``kernel_pca`` or ``pca``.
        perplexity: of the t-SNE engines.
        init: of the t-SNE engines, ``pca`` or ``random``.
        seed: of a random start.
        compiled, on_progress: of our own engines.

    Returns:
        [D, 2] float64, and KL(P‖Q) of a t-SNE layout; NaN of others.

    Raises:
        UserError: an unknown engine or start, one that is not installed, or too few features for the perplexity.
    """
    if engine not in ENGINES or init not in ("pca", "random"):
        raise UserError(f"layout by {engine!r} from {init!r}: use {', '.join(ENGINES)}, and pca or random")
    if engine == "pca":
        return principal_coordinates(distances).astype(np.float64), float("nan")
    if engine == "kernel_pca":
        return kernel_principal_components(distances).astype(np.float64), float("nan")
    check_perplexity(len(distances), perplexity)
    if init == "pca":
        start = principal_coordinates(distances).astype(np.float64)
        start *= 0.1 / start[:, 0].std()
    else:
        start = 0.1 * np.random.default_rng(seed).standard_normal((len(distances), 2))
    joint = affinities(distances, perplexity, all_pairs=engine in ("tsne_exact", "sklearn_exact"))
    if engine == "tsne":
        points = descend(joint, start, interpolated(joint), on_progress=on_progress)
    elif engine == "tsne_exact":
        from vision_bridge.tsne_exact import exact

        points = descend(joint, start, exact(joint, compiled), on_progress=on_progress)
    else:
        peer: Any = _open_tsne if engine == "opentsne" else _scikit_tsne
        points = peer(distances, perplexity, (1e-3 * start).astype(np.float32), seed, engine).astype(np.float64)
    return points, kl_divergence(joint, points)


def _scikit_tsne(distances: np.ndarray, perplexity: float, start: np.ndarray, seed: int, engine: str) -> np.ndarray:
    from sklearn.manifold import TSNE

    method = "exact" if engine == "sklearn_exact" else "barnes_hut"
    model = TSNE(perplexity=perplexity, init=start, metric="precomputed", method=method, random_state=seed, n_jobs=-1)
    return model.fit_transform(distances.copy())  # which it squares in place


def _open_tsne(distances: np.ndarray, perplexity: float, start: np.ndarray, seed: int, engine: str) -> np.ndarray:
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise UserError("layout by 'opentsne' needs the extra: pip install triptych-keras[opentsne]") from error
    model = TSNE(perplexity=perplexity, initialization=start, metric="precomputed", random_state=seed, n_jobs=-1)
    return np.asarray(model.fit(distances))
