"""Layouts of fewer features than a perplexity of 30 needs, down to one, without further choices."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import zscore
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from files.errors import UserError
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.feature_counts import notes, perplexity_of
from vision_bridge.layouts.layout import Layout

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = LayoutConfig(8, 9)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """[300, 6] of columns that go together more or less."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(300, 6))


@pytest.mark.parametrize("engine", ["tsne", "pca", "kernel_pca", "sklearn", "order"])
@pytest.mark.parametrize("count", [*range(1, 8), 12])
def test_few_features_are_laid_out_without_further_choices(engine: str, count: int) -> None:
    rng = np.random.default_rng(count)
    features = rng.normal(size=(60, 3)) @ rng.normal(size=(3, count)) + rng.normal(size=(60, count))
    config = LayoutConfig(10, 12, engine=engine)
    layout = Layout.fit(features, config)
    assert np.isfinite(layout.points).all() and len(layout.points) == count
    assert layout.counts().max() == 1 or (count > 4 and engine != "order")
    alone = layout.counts()[tuple(layout.pixels.T)] == 1
    scaled = zscore(features)
    found = layout.transform(features)[:, layout.pixels[:, 0], layout.pixels[:, 1]]
    np.testing.assert_allclose(found[:, alone], scaled[:, alone], atol=1e-5)


def test_three_features_lie_at_their_distances(features: np.ndarray) -> None:
    config = LayoutConfig(10, 12, distance="euclidean")
    points = Layout.fit(features[:, :3], config).points
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(apart, squareform(pdist(zscore(features[:, :3]).T)), rtol=1e-5)


def test_the_perplexity_is_what_the_features_allow(features: np.ndarray) -> None:
    assert [perplexity_of(count, LayoutConfig()) for count in (5, 13, 31, 91, 1000)] == [4 / 3, 4, 10, 30, 30]
    assert perplexity_of(13, LayoutConfig(perplexity=3.5)) == 3.5
    assert notes(13, LayoutConfig()) == ["a perplexity of 4, the largest that 13 features allow"]
    assert not notes(13, LayoutConfig(perplexity=4)) and not notes(91, LayoutConfig())
    assert not notes(13, LayoutConfig(engine="pca")) and not notes(3, LayoutConfig(engine="order"))
    assert notes(4, LayoutConfig()) == ["4 feature(s): too few for tsne, so their principal coordinates are the layout"]
    given = Layout.fit(features, dataclasses.replace(CONFIG, perplexity=5 / 3))
    np.testing.assert_array_equal(given.points, Layout.fit(features, CONFIG).points)
    for perplexity, count, message in ((2, 6, "6 features are too few for a perplexity of 2, .*at most 1.66, or"),
                                       (1.2, 4, "4 features are too few for t-SNE, which needs 5: leave out"),
                                       (0.5, 6, "a perplexity of 0.5, which must be above 1")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            Layout.fit(features[:, :count], dataclasses.replace(CONFIG, perplexity=perplexity))


@pytest.mark.parametrize("load, count", [(load_iris, 4), (load_wine, 13), (load_breast_cancer, 30)])
def test_little_tables_work_by_default(load: object, count: int) -> None:
    """Every pair of neighbours on the image is a pair of neighbours by correlation: the nearest of each feature."""
    features = load().data  # type: ignore[operator]
    layout = Layout.fit(features, LayoutConfig())
    apart = squareform(pdist(layout.points)) + np.diag(np.full(count, np.inf))
    distance = squareform(pdist(features.T, "correlation"))
    chosen = distance[np.arange(count), apart.argmin(axis=1)]
    others = (distance.sum(axis=1) / (count - 1)).mean()
    assert chosen.mean() < 0.6 * others


def test_one_feature_among_images() -> None:
    values = np.arange(10.0)[:, None]
    layout = Layout.fit(values, CONFIG)
    images = layout.transform(values)
    assert (images != 0).sum(axis=(1, 2)).tolist() == [1] * 10
    np.testing.assert_allclose(layout.inverse(images), values, atol=1e-5)
