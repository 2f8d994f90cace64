"""Distances that are computed where they are read, and columns that are equal."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import vision_bridge.layouts.distance_rows
import vision_bridge.layouts.layout
from tests.test_hard_columns import TABLES
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.distance_rows import DistanceRows, suits
from vision_bridge.layouts.distances import DISTANCES, feature_distances
from vision_bridge.layouts.duplicates import equal_columns
from vision_bridge.layouts.embedding import principal_coordinates
from vision_bridge.layouts.layout import Layout
from vision_bridge.layouts.scaling import SCALINGS, describe, fit_scaling


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("table", TABLES)
def test_distances_read_by_rows_are_those_of_the_matrix(table: str, scaling: str, kind: str) -> None:
    features = TABLES[table]
    fitted = fit_scaling(scaling, describe(features))
    rows, whole = DistanceRows(features, fitted, kind), feature_distances(features, fitted, kind)
    lost = 1e-14 if (scaling, kind) == ("log", "euclidean") else 1e-18
    np.testing.assert_allclose(rows[:], whole, rtol=2e-5, atol=lost)
    np.testing.assert_allclose(rows[2:5], rows[:][2:5], rtol=1e-5, atol=lost)
    assert len(rows) == features.shape[1]


@pytest.mark.parametrize("kind", DISTANCES)
def test_a_layout_by_rows_is_that_of_the_matrix(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = 3 + rng.normal(size=(40, 6)) @ rng.normal(size=(6, 700)) + 0.3 * rng.normal(size=(40, 700))
    features[:, 7] = features[:, 9] + 1e-7 * rng.normal(size=40)
    config = LayoutConfig(distance=kind)
    whole = Layout.fit(features, config)
    monkeypatch.setattr(vision_bridge.layouts.distance_rows, "WIDE", 699)
    monkeypatch.setattr(vision_bridge.layouts.layout, "feature_distances", None)  # the matrix is not computed
    found = Layout.fit(features, config)
    np.testing.assert_allclose(found.divergence, whole.divergence, rtol=0.01)
    start = principal_coordinates(DistanceRows(features, fit_scaling("min_max", describe(features)), kind))
    expected = principal_coordinates(feature_distances(features, fit_scaling("min_max", describe(features)), kind))
    np.testing.assert_allclose(start, expected, atol=1e-5 * np.abs(expected).max())


def test_distances_by_rows_need_many_features_and_few_rows() -> None:
    assert suits(500, 20_000, "correlation") and suits(2_000, 20_000, "euclidean")
    assert (
        not suits(2_000, 20_000, "cosine") and not suits(500, 8_000, "cosine") and not suits(9_000, 9_000, "euclidean")
    )


def test_the_first_equal_columns_are_found() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.01, (700, 300)).astype(np.float32)  # most are equal for hundreds of rows
    counts[:, 10] = rng.poisson(1.0, 700)
    counts[:, [250, 40, 41]] = counts[:, [10, 10, 11]]
    counts[:, 12] = -counts[:, 10] * 0  # zeros of both signs
    assert equal_columns(counts[:, :40]) is None
    assert equal_columns(counts) == equal_columns(csr_matrix(counts)) == (10, 40)
    near = 2**62 + np.zeros((300, 4), np.int64)  # equal in float64
    near[:, 1:] += [1, 2, 1]
    assert equal_columns(near) == (1, 3)
