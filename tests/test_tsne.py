"""The descent of t-SNE against scikit-learn's on many tables, and the equations that give its direction."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import _t_sne

from tests.golden.clustered import PERPLEXITY, TABLES, start, table
from vision_bridge.layouts import laplacian, tsne
from vision_bridge.layouts.embedding import STARTS, embed_features
from vision_bridge.layouts.tsne import Objective, Value, affinities, descend, kl_divergence

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = json.loads((Path(__file__).parent / "golden" / "clustered.json").read_text())


def _over_all_pairs(joint: csr_matrix) -> Objective:
    """The objective in plain NumPy: for small tables ten times as fast as by Fourier transforms."""
    p = joint.toarray().astype(np.float64)

    def objective(points: np.ndarray) -> Value:
        square = np.square(points).sum(axis=1)
        inverse = np.maximum(1 + square[:, None] + square - 2 * points @ points.T, 1)
        w = 1 / inverse
        total = w.sum() - len(points)
        force = (p - w / total) * w
        gradient = 4 * (force.sum(axis=1)[:, None] * points - force @ points)
        return Value(float(np.sum(p * np.log(inverse)) + np.log(total)), gradient)

    return objective


@pytest.mark.parametrize("first", range(0, TABLES, 20))
def test_no_layout_of_clustered_tables_stalls(first: int) -> None:
    """Sixteen of the two hundred did when each line search began at twice the last rate."""
    for number in range(first, first + 20):
        distances, golden = table(number), GOLDEN[number]
        assert distances.mean() == pytest.approx(golden["mean"], abs=2e-6)
        joint = affinities(distances, PERPLEXITY)
        points = descend(joint, STARTS[start(number)](distances, number), _over_all_pairs(joint))
        assert kl_divergence(joint, points) <= 1.05 * golden["divergence"] + 0.05, f"table {number}, {start(number)}"


@pytest.mark.parametrize("number", [39, 43, 60, 85, 115, 137])
def test_the_default_engine_does_not_stall_either(number: int) -> None:
    found = embed_features(table(number), "tsne", PERPLEXITY, start(number), number).divergence
    assert found <= 1.05 * GOLDEN[number]["divergence"] + 0.05


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """Distances [700, 700] in eight dimensions, seven groups."""
    rng = np.random.default_rng(0)
    return squareform(pdist(rng.normal(size=(700, 8)) + 3 * rng.normal(size=(7, 8)).repeat(100, axis=0))).astype("f4")


def test_a_throttled_start_is_not_taken_for_convergence(cloud: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps that the limit makes tiny: the fourth is a whole one, and none of the three counts as a halt."""
    _, expected = embed_features(cloud, "tsne", 30.0, "pca", 0)
    limits, max_rate = [1e-6] * 3, tsne._max_rate

    def throttled(points: np.ndarray, direction: np.ndarray) -> float:
        return limits.pop() if limits else max_rate(points, direction)

    monkeypatch.setattr(tsne, "_max_rate", throttled)
    _, found = embed_features(cloud, "tsne", 30.0, "pca", 0)
    assert found == pytest.approx(expected, rel=0.01)


def test_a_limited_crawl_is_not_taken_for_convergence(cloud: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty steps that the limit makes small; then the descent goes on."""
    _, expected = embed_features(cloud, "tsne", 30.0, "pca", 0)
    steps, max_rate = iter(range(10_000)), tsne._max_rate

    def limited(points: np.ndarray, direction: np.ndarray) -> float:
        rate = max_rate(points, direction)
        return 0.01 * rate if next(steps) < 40 else rate

    monkeypatch.setattr(tsne, "_max_rate", limited)
    _, found = embed_features(cloud, "tsne", 30.0, "pca", 0)
    assert found == pytest.approx(expected, rel=0.01)


def test_affinities_in_blocks_of_rows(cloud: np.ndarray) -> None:
    near = 90
    order = np.argsort(cloud + np.diag(np.full(700, np.inf)), axis=1)[:, :near]
    square = np.take_along_axis(cloud, order, axis=1) ** 2
    rows = np.arange(0, 700 * near + 1, near)
    nearest = csr_matrix((square.ravel(), order.ravel(), rows), (700, 700))
    expected = _t_sne._joint_probabilities_nn(nearest, 30.0, 0).toarray()
    np.testing.assert_allclose(affinities(cloud, 30.0).toarray(), expected, atol=1e-8, rtol=1e-4)


def test_the_laplacian_and_its_equations(cloud: np.ndarray) -> None:
    joint = affinities(cloud, 30.0)
    points = np.random.default_rng(1).normal(size=(700, 2))
    weight = joint.toarray().astype(np.float64) / (1 + squareform(pdist(points)) ** 2)
    expected = 4 * (1.01 * np.diag(weight.sum(axis=1)) - weight)
    matrix = laplacian.laplacian(joint, points)
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-4, atol=1e-9)
    right = 1e-3 * np.random.default_rng(2).normal(size=(700, 2))
    truth = np.linalg.solve(expected, right)
    np.testing.assert_allclose(laplacian.factored(matrix)(right), truth, atol=1e-3 * np.abs(truth).max())
    error = laplacian.conjugate(matrix)(right) - truth
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(truth)
    np.testing.assert_array_equal(laplacian.conjugate(matrix)(np.zeros((700, 2))), 0)


def test_conjugate_gradients_solve_more_exactly_if_asked(cloud: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = laplacian.laplacian(affinities(cloud, 30.0), np.random.default_rng(1).normal(size=(700, 2)))
    right = 1e-3 * np.random.default_rng(2).normal(size=(700, 2))
    monkeypatch.setattr(laplacian, "ACCURACY", 1e-5)
    exact = np.linalg.solve(matrix.toarray().astype(np.float64), right)
    found = laplacian.conjugate(matrix)(right)
    np.testing.assert_allclose(found, exact, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize("init", ["pca", "random"])
def test_many_features_are_laid_out_as_well(cloud: np.ndarray, init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a factor of the Laplacian the divergence is within a hundredth."""
    _, dense = embed_features(cloud, "tsne", 30.0, init, 0)
    monkeypatch.setattr(laplacian, "FACTORED", 0)
    monkeypatch.setattr(laplacian, "DENSE", 1)
    _, sparse = embed_features(cloud, "tsne", 30.0, init, 0)
    assert sparse <= 1.01 * dense
