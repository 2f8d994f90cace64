"""Layouts on grids: IGTD and the order of the features; UMAP, whose library is optional."""

import importlib.util
import sys
import types
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import spearmanr

from files.errors import UserError
from vision_bridge.layouts import igtd
from vision_bridge.layouts.embedding import ENGINES, check_engine, embed_features
from vision_bridge.layouts.grids import frame, grid_shape, pixels_of_cells, pixels_of_points, points_of_pixels


@pytest.mark.parametrize("count, image, expected", [
    (784, (28, 28), (28, 28)),
    (784, (50, 50), (28, 28)),  # the smallest square, not the image
    (10, (50, 50), (3, 4)),
    (12, (50, 50), (3, 4)),
    (13, (50, 50), (4, 4)),
    (1, (50, 50), (1, 1)),
    (600, (20, 30), (20, 30)),
    (150, (20, 30), (10, 15)),  # half of the image's sides
    (5, (1, 9), (1, 5)),
    (5, (9, 1), (5, 1)),
    (10, (4, 3), (4, 3)),
])  # fmt: skip
def test_a_grid_has_the_image_s_proportions(count: int, image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert grid_shape(count, image) == expected


def test_every_grid_fits_and_gives_each_cell_a_pixel() -> None:
    for height in range(1, 9):
        for width in range(1, 9):
            for count in range(1, height * width + 1):
                rows, columns = grid_shape(count, (height, width))
                assert (rows - 1) * columns < count <= rows * columns
                pixels = pixels_of_cells(np.arange(count), (rows, columns), (height, width))
                assert (pixels >= 0).all() and (pixels < (height, width)).all()
                assert len(np.unique(pixels, axis=0)) == count
                np.testing.assert_array_equal(np.lexsort(pixels.T[::-1]), np.arange(count))  # still row by row


def test_cells_are_stretched_over_the_image() -> None:
    pixels = pixels_of_cells(np.arange(5), (2, 3), (4, 9))  # cells of 2 × 3 pixels
    assert pixels.tolist() == [[1, 1], [1, 4], [1, 7], [3, 1], [3, 4]]
    points = points_of_pixels(pixels, (4, 9))
    assert points.tolist() == [[1.5, 2.5], [4.5, 2.5], [7.5, 2.5], [1.5, 0.5], [4.5, 0.5]]
    np.testing.assert_array_equal(pixels_of_points(points, (4, 9)), pixels)
    assert frame((4, 9)).tolist() == [[0, 0], [9, 0], [9, 4], [0, 4]]


def test_an_image_with_too_few_pixels() -> None:
    with pytest.raises(UserError, match=r"3×4 = 12 pixels are too few to give each of 13 features.*a square of 4 is"):
        grid_shape(13, (3, 4))
    with pytest.raises(UserError, match="a square of 5 is enough"):
        embed_features(np.zeros((17, 17), np.float32), "order", 30.0, "pca", 0, shape=(4, 4))


def test_the_order_of_the_features_row_by_row() -> None:
    points = embed_features(np.zeros((7, 7), np.float32), "order", 30.0, "pca", 0, shape=(6, 6)).points
    assert pixels_of_points(points, (6, 6)).tolist() == [[1, 1], [1, 3], [1, 5], [3, 1], [3, 3], [3, 5], [5, 1]]
    without = embed_features(np.zeros((7, 7), np.float32), "order", 30.0, "pca", 0).points  # the smallest square
    assert pixels_of_points(without, (3, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]


def test_ranks_by_hand() -> None:
    distances = squareform([5.0, 1.0, 3.0, 3.0, 2.0, 7.0])
    assert squareform(igtd.ranks(distances)).tolist() == [5, 1, 3.5, 3.5, 2, 6]


def test_three_features_by_hand() -> None:
    """Features a, b, c with d(a,b) < d(b,c) < d(a,c), given as a, c, b: b belongs into the middle."""
    source, target = squareform([3.0, 1.0, 2.0]), squareform([1.5, 3.0, 1.5])  # pairs 01, 02, 12
    for seed in range(6):
        found = igtd.arrange(source, target, seed)
        assert found.errors[0] == 1.5**2 + 2**2 + 0.5**2
        assert found.errors[-1] == 0.5**2 + 0.5**2  # ranks 1, 3, 2 or 2, 3, 1 against 1.5, 3, 1.5
        assert found.order[1] == 2


def _published(source: np.ndarray, target: np.ndarray, considered: list[int], steps: int) -> tuple[list, list]:
    """The algorithm as the paper says it: every swap's whole error."""
    order, count = list(range(len(source))), len(source)

    def error(order: list[int]) -> float:
        return sum((source[order[i], order[j]] - target[i, j]) ** 2 for i in range(count) for j in range(i))

    errors = [error(order)]
    for step in range(steps):
        one = min(range(count), key=lambda k: (considered[k], k))
        trials = []
        for other in range(count):
            swapped = order.copy()
            swapped[one], swapped[other] = order[other], order[one]
            trials.append((error(swapped) if other != one else np.inf, other))
        best, other = min(trials)
        considered[one] = step
        if best < errors[-1] - 1e-9:
            order[one], order[other] = order[other], order[one]
            considered[other] = step
        errors.append(min(best, errors[-1]))
    return order, errors


@pytest.mark.parametrize("seed", range(3))
def test_swaps_are_those_of_the_published_algorithm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = igtd.ranks(squareform(pdist(rng.normal(size=(12, 3)))))
    cells = np.stack(np.divmod(np.arange(12), 4), axis=1)
    target = igtd.ranks(cdist(cells, cells))
    found = igtd.arrange(source, target, seed)
    considered = (np.random.default_rng(seed).permutation(12) - 12).tolist()
    order, errors = _published(source, target, considered, 60)
    np.testing.assert_allclose(found.errors[:61], errors)
    assert found.errors[60] == found.errors[-1]  # both have come to rest
    assert found.order.tolist() == order


def test_the_error_never_rises_and_is_that_of_the_result() -> None:
    rng = np.random.default_rng(0)
    source = igtd.ranks(squareform(pdist(rng.normal(size=(90, 5)))))
    cells = np.stack(np.divmod(np.arange(90), 10), axis=1)
    target = igtd.ranks(cdist(cells, cells))
    found = igtd.arrange(source, target, 0)
    assert (np.diff(found.errors) <= 0).all() and found.errors[-1] < 0.8 * found.errors[0]
    assert sorted(found.order) == list(range(90))
    placed = source[np.ix_(found.order, found.order)]
    assert found.errors[-1] == pytest.approx(np.square(placed - target).sum() / 2, rel=1e-9)
    centred = igtd.arrange(igtd._centred(source), igtd._centred(target), 0)  # as ``igtd`` calls it
    assert centred.errors[-1] * (90 * 89 / 2) ** 2 == pytest.approx(found.errors[-1], rel=0.05)


@pytest.mark.parametrize("swaps, drawn, least", [(1, 1, 10), (10, 2, 2)])
def test_a_permuted_grid_is_recovered_up_to_symmetry(swaps: int, drawn: int, least: int) -> None:
    """Single swaps may end in a poorer arrangement: all of ten seeds find a grid with one swap, half a shuffled one."""
    cells, rng = np.stack(np.divmod(np.arange(20), 5), axis=1), np.random.default_rng(drawn)
    shuffled = np.arange(20)
    pairs = rng.permutation(20)[: 2 * swaps].reshape(2, -1)
    shuffled[pairs] = shuffled[pairs[::-1]]
    distances = cdist(cells, cells)[np.ix_(shuffled, shuffled)]
    recovered = 0
    for seed in range(10):
        place = np.stack(np.divmod(igtd.igtd(distances, (4, 5), seed), 5), axis=1)
        if np.array_equal(cdist(place, place), distances):
            recovered += 1
            found, truth = 2 * place - (3, 4), 2 * cells[shuffled] - (3, 4)  # about the grid's middle
            assert any(np.array_equal(found, truth * (row, column)) for row in (1, -1) for column in (1, -1))
    assert recovered >= least


def test_igtd_places_similar_features_together() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(size=(100, 2))  # features of a plane
    distances = squareform(pdist(places)).astype(np.float32)
    points = embed_features(distances, "igtd", 30.0, "pca", 0, shape=(20, 20)).points
    pixels = pixels_of_points(points, (20, 20))
    assert sorted(map(tuple, pixels)) == [(row, column) for row in range(1, 20, 2) for column in range(1, 20, 2)]
    assert spearmanr(pdist(points), pdist(places)).statistic > 0.9
    assert abs(spearmanr(pdist(points_of_pixels(pixels[::-1], (20, 20))), pdist(places)).statistic) < 0.2


def test_igtd_depends_on_its_seed_only() -> None:
    distances = squareform(pdist(np.random.default_rng(0).normal(size=(60, 8))))
    first, again, other = (igtd.igtd(distances, (8, 8), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_features_have_a_grid(count: int) -> None:
    distances = squareform(np.arange(1.0, count * (count - 1) / 2 + 1)) if count > 1 else np.zeros((1, 1))
    for name in ("igtd", "order"):
        points = embed_features(distances, name, 30.0, "pca", 0, shape=(5, 5)).points
        assert len(np.unique(points, axis=0)) == count


def test_igtd_has_a_limit() -> None:
    check_engine("igtd", igtd.MOST, 30.0)
    with pytest.raises(UserError, match="4097 features are too many for the engine igtd, which takes 4096 at most"):
        check_engine("igtd", igtd.MOST + 1, 30.0)


def test_umap_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"needs the extra: pip install triptych-keras\[umap\]"):
        embed_features(np.zeros((20, 20), np.float32), "umap", 30.0, "pca", 0)


def test_umap_is_given_the_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class UMAP:
        def __init__(self, **choices: Any) -> None:
            calls.append(choices)

        def fit_transform(self, distances: np.ndarray) -> np.ndarray:
            return distances[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    distances = squareform(pdist(np.random.default_rng(0).normal(size=(9, 3)))).astype(np.float32)
    found = embed_features(distances, "umap", 30.0, "pca", 4)
    np.testing.assert_array_equal(found.points, distances[:, :2])
    assert np.isnan(found.divergence)
    assert calls == [{"n_neighbors": 8, "metric": "precomputed", "random_state": 4, "n_jobs": 1}]


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is optional")
@pytest.mark.filterwarnings("default")  # of its own libraries
def test_umap_separates_clusters() -> None:
    centres = 10 * np.random.default_rng(0).normal(size=(4, 6))
    columns = centres.repeat(15, axis=0) + np.random.default_rng(1).normal(size=(60, 6))
    distances = squareform(pdist(columns)).astype(np.float32)
    points = embed_features(distances, "umap", 30.0, "pca", 0).points
    nearest = (squareform(pdist(points)) + np.diag(np.full(60, np.inf))).argmin(axis=1)
    assert (nearest // 15 == np.arange(60) // 15).all()
    np.testing.assert_array_equal(points, embed_features(distances, "umap", 30.0, "pca", 0).points)


def test_each_engine_is_one_way() -> None:
    for name, engine in ENGINES.items():
        assert sum(way is not None for way in (engine.direct, engine.tsne, engine.grid)) == 1, name
