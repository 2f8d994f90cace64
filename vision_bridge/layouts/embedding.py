"""The engines of a layout: distances between features → points in the plane.

``D`` features, ``H`` × ``W`` the image.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from files.errors import UserError
from vision_bridge.layouts import igtd
from vision_bridge.layouts.classical_scaling import kernel_principal_components, principal_coordinates
from vision_bridge.layouts.distance_rows import DistanceRows
from vision_bridge.layouts.grids import grid_shape, pixels_of_cells, points_of_pixels
from vision_bridge.layouts.tsne import (
    Compiled,
    Progress,
    affinities,
    check_perplexity,
    descend,
    kl_divergence,
    silent,
    uncompiled,
)
from vision_bridge.layouts.tsne_fft import interpolated


class Embedding(NamedTuple):
    """A layout before it has pixels."""

    points: np.ndarray  # [D, 2] float64
    divergence: float  # KL(P‖Q) of a t-SNE layout; NaN for other layouts


def _principal_start(distances: np.ndarray | DistanceRows, seed: int) -> np.ndarray:
    start = principal_coordinates(distances).astype(np.float64)
    start *= 0.1 / start[:, 0].std()
    return start


def _random_start(distances: np.ndarray | DistanceRows, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((len(distances), 2))


Start = Callable[[np.ndarray | DistanceRows, int], np.ndarray]  # (distances, seed) → [D, 2] with a deviation near 0.1
STARTS: dict[str, Start] = {"pca": _principal_start, "random": _random_start}  # where a t-SNE starts


class Problem(NamedTuple):
    """The input of a t-SNE engine."""

    distances: Any  # [D, D] float32, or ``DistanceRows`` for an engine ``by_rows``
    joint: csr_matrix  # affinities
    start: np.ndarray  # [D, 2] float64
    perplexity: float
    seed: int
    compiled: Compiled
    on_progress: Progress


def _fast(problem: Problem) -> np.ndarray:
    joint = problem.joint
    return descend(joint, problem.start, interpolated(joint), on_progress=problem.on_progress)


def _exact(problem: Problem) -> np.ndarray:
    from vision_bridge.layouts.tsne_exact import exact

    objective = exact(problem.joint, problem.compiled)
    return descend(problem.joint, problem.start, objective, on_progress=problem.on_progress)


def _library_start(problem: Problem) -> np.ndarray:
    return (1e-3 * problem.start).astype(np.float32)


def _scikit(method: str) -> Callable[[Problem], np.ndarray]:
    def run(problem: Problem) -> np.ndarray:
        from sklearn.manifold import TSNE

        model = TSNE(
            perplexity=problem.perplexity, init=_library_start(problem), metric="precomputed", method=method,
            random_state=problem.seed, n_jobs=-1,
        )  # fmt: skip
        return model.fit_transform(problem.distances.copy())  # which it squares in place

    return run


def _open_tsne(problem: Problem) -> np.ndarray:
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise UserError("layout by 'opentsne' needs the extra: pip install triptych-keras[opentsne]") from error
    model = TSNE(
        perplexity=problem.perplexity, initialization=_library_start(problem), metric="precomputed",
        random_state=problem.seed, n_jobs=-1,
    )  # fmt: skip
    return np.asarray(model.fit(problem.distances))


def _umap(distances: np.ndarray, seed: int) -> np.ndarray:
    """UMAP (McInnes et al. 2018) by its authors' library with its default choices. The import is slow: it compiles."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise UserError("layout by 'umap' needs the extra: pip install triptych-keras[umap]") from error
    neighbours = min(15, len(distances) - 1)
    model = UMAP(n_neighbors=neighbours, metric="precomputed", random_state=seed, n_jobs=1)  # a seed needs one thread
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "using precomputed metric", UserWarning)  # that new points cannot be added
        return model.fit_transform(distances)


def _given_order(distances: np.ndarray, grid: tuple[int, int], seed: int) -> np.ndarray:
    return np.arange(len(distances))


# (distances [D, D], rows and columns of a grid, seed) → [D], the cell of each feature, counted row by row
PlaceOnGrid = Callable[[np.ndarray, tuple[int, int], int], np.ndarray]


class Engine(NamedTuple):
    """A way to lay out features; exactly one of ``direct``, ``tsne`` and ``grid`` is given.

    Attributes:
        direct: (distances [D, D], seed) → [D, 2].
        tsne: problem → [D, 2].
        grid: places every feature in a cell of its own, so neither the rectangle nor the rule of the pixels matters.
        all_pairs: whether a t-SNE has affinities of all pairs, or of nearest neighbours only.
        by_rows: whether it also takes ``DistanceRows`` instead of a matrix.
        most: the most features that it takes.
    """

    direct: Callable[[Any, int], np.ndarray] | None = None
    tsne: Callable[[Problem], np.ndarray] | None = None
    grid: PlaceOnGrid | None = None
    all_pairs: bool = False
    by_rows: bool = False
    most: int | None = None


ENGINES = {
    "tsne": Engine(tsne=_fast, by_rows=True),
    "tsne_exact": Engine(tsne=_exact, all_pairs=True),  # for accelerators
    "sklearn": Engine(tsne=_scikit("barnes_hut")),
    "sklearn_exact": Engine(tsne=_scikit("exact"), all_pairs=True),
    "opentsne": Engine(tsne=_open_tsne),
    "umap": Engine(direct=_umap),
    "kernel_pca": Engine(direct=lambda distances, seed: kernel_principal_components(distances)),
    "pca": Engine(direct=lambda distances, seed: principal_coordinates(distances), by_rows=True),
    "igtd": Engine(grid=igtd.igtd, most=igtd.MOST),
    "order": Engine(grid=_given_order),  # the features as they come, row by row: a control
}


def check_engine(engine: str, count: int, perplexity: float) -> None:
    """Raises UserError if ``count`` features are too few or too many for the engine."""
    chosen = ENGINES[engine]
    if chosen.tsne:
        check_perplexity(count, perplexity)
    if chosen.most is not None and count > chosen.most:
        raise UserError(
            f"{count} features are too many for the engine {engine}, which takes {chosen.most} at most: "
            "use the engine tsne, or fewer features"
        )


def embed_features(
    distances: Any,
    engine: str,
    perplexity: float,
    init: str,
    seed: int,
    compiled: Compiled = uncompiled,
    on_progress: Progress = silent,
    shape: tuple[int, int] | None = None,
) -> Embedding:
    """Points in the plane, so that similar features lie close together.

    For engines with a grid, the points are the middles of pixels (``pixels_of_points`` gives the pixels). The grid is
    the smallest one with the image's proportions and a cell for every feature, stretched over the image.

    Args:
        distances: [D, D] float32, or ``DistanceRows`` for an engine ``by_rows``.
        engine: one of ``ENGINES``.
        perplexity: of the t-SNE engines.
        init: of the t-SNE engines, one of ``STARTS``.
        seed: of a random start, of UMAP, and of the order in which IGTD considers features.
        compiled, on_progress: for our own t-SNE engines.
        shape: H, W of the image, for the engines with a grid. [the smallest square]

    Raises:
        UserError: an engine that is not installed, too few features for the perplexity, too many for the engine, or an
            image with fewer pixels than features where each needs its own.
    """
    count, chosen = len(distances), ENGINES[engine]
    check_engine(engine, count, perplexity)
    if chosen.direct:
        return Embedding(chosen.direct(distances, seed).astype(np.float64), float("nan"))
    if chosen.grid:
        return _on_grid(chosen.grid, distances, shape or (math.isqrt(count - 1) + 1,) * 2, seed)
    assert chosen.tsne is not None
    start = STARTS[init](distances, seed)
    joint = affinities(distances, perplexity, all_pairs=chosen.all_pairs)
    problem = Problem(distances, joint, start, perplexity, seed, compiled, on_progress)
    points = chosen.tsne(problem).astype(np.float64)
    return Embedding(points, kl_divergence(joint, points))


def _on_grid(place: PlaceOnGrid, distances: np.ndarray, image: tuple[int, int], seed: int) -> Embedding:
    """The middles of the pixels on which the cells of the features lie."""
    grid = grid_shape(len(distances), image)
    pixels = pixels_of_cells(place(distances, grid, seed), grid, image)
    return Embedding(points_of_pixels(pixels, image), float("nan"))
