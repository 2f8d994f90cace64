"""Engines with a grid through ``Layout``: every feature has its pixel, whatever the rules of rectangle and pixels."""

import numpy as np
import pytest

from files.errors import UserError
from vision_bridge.config import LayoutConfig
from vision_bridge.layouts.layout import Layout
from vision_bridge.layouts.pixels import PIXELS
from vision_bridge.layouts.rectangle import RECTANGLES


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """[40, 24] float32: columns of a plane of 4 × 6 places, near ones alike."""
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(24), 6)
    waves = rng.normal(size=(40, 24)) * 0.05
    for _ in range(30):
        u, v = rng.normal(0, 0.6, 2)
        waves += rng.normal(size=(40, 1)) * np.cos(u * row + v * column + rng.uniform(0, 6))
    return waves.astype(np.float32)


@pytest.mark.parametrize("rectangle", RECTANGLES)
@pytest.mark.parametrize("pixels", PIXELS)
def test_order_is_row_by_row_under_every_rule(features: np.ndarray, rectangle: str, pixels: str) -> None:
    for shape in ((4, 6), (5, 5)):
        layout = Layout.fit(features, LayoutConfig(*shape, engine="order", rectangle=rectangle, pixels=pixels))
        np.testing.assert_array_equal(layout.pixels, np.stack(np.divmod(np.arange(24), shape[1]), axis=1))
    tall = Layout.fit(features, LayoutConfig(12, 8, engine="order", rectangle=rectangle, pixels=pixels))
    assert tall.pixels[:5].tolist() == [[1, 1], [1, 3], [1, 5], [1, 7], [3, 1]]  # 6 × 4 cells of 2 × 2 pixels
    images = tall.transform(features)
    np.testing.assert_allclose(images[:, 1::2, 1::2].reshape(40, 24), tall.scaling.apply(features), atol=1e-6)
    assert np.count_nonzero(images) == 40 * 24


def test_igtd_lays_features_of_a_plane_out(features: np.ndarray) -> None:
    shuffled = np.random.default_rng(1).permutation(24)
    layout = Layout.fit(features[:, shuffled], LayoutConfig(4, 6, engine="igtd", distance="euclidean"))
    assert layout.counts().tolist() == np.ones((4, 6)).tolist() and np.isnan(layout.divergence)
    places = np.stack(np.divmod(np.arange(24), 6), axis=1)[shuffled]
    near = np.abs(places[:, None] - places).sum(axis=-1) == 1
    found = np.linalg.norm(layout.pixels[:, None] - layout.pixels, axis=-1)
    assert found[near].mean() < 0.75 * found[~np.eye(24, dtype=bool)].mean()


@pytest.mark.parametrize("engine", ["igtd", "order"])
def test_an_image_that_is_too_small(features: np.ndarray, engine: str) -> None:
    with pytest.raises(UserError, match=r"4×5 = 20 pixels are too few to give each of 24.*a square of 5"):
        Layout.fit(features, LayoutConfig(4, 5, engine=engine))
