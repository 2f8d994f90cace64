"""Scaling, distances, t-SNE and the pixel map."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import pdist, squareform

from files.errors import UserError
from training.functions import compiled
from vision_bridge.config import LayoutConfig
from vision_bridge.frozen.images import Normalization, mixing, prepare
from vision_bridge.layouts.distances import DISTANCES, Gram, distances, gram_matrix
from vision_bridge.layouts.embedding import embed_features, kernel_principal_components, principal_coordinates
from vision_bridge.layouts.layout import Layout
from vision_bridge.layouts.scaling import SCALINGS, describe, fit_scaling
from vision_bridge.layouts.tsne import affinities, descend, kl_divergence
from vision_bridge.layouts.tsne_exact import exact
from vision_bridge.layouts.tsne_fft import interpolated, potential

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """[300, 120] float32: twelve groups of ten columns that go together."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(300, 12)).repeat(10, axis=1)
    return (sources + 0.7 * rng.normal(size=(300, 120)) + rng.normal(0, 5, 120)).astype(np.float32)


def test_columns_are_described_and_scaled(features: np.ndarray) -> None:
    columns = describe(features)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(columns.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(columns.deviation, exact.std(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(columns.high, exact.max(axis=0))
    scaled = fit_scaling("standardize", columns).apply(features)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)
    scaled = fit_scaling("min_max", columns).apply(features)
    np.testing.assert_allclose((scaled.min(), scaled.max()), (0, 1), atol=1e-6)
    low = exact.min(axis=0)
    by_hand = np.log(exact + np.abs(low) + 1)
    log = fit_scaling("log", columns)
    np.testing.assert_allclose(log.apply(features), by_hand / by_hand.max(), rtol=1e-5)
    np.testing.assert_array_equal(log.apply(features[:1] - 1000), log.apply(low[None].astype(np.float32)))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("kind", DISTANCES)
def test_distances_from_one_gram_matrix(features: np.ndarray, kind: str, scaling: str) -> None:
    fitted = fit_scaling(scaling, describe(features))
    found = distances(gram_matrix(features, fitted, kind), kind)
    expected = squareform(pdist(fitted.apply(features).astype(np.float64).T, kind))
    np.testing.assert_allclose(found, expected, atol=2e-5 * expected.max())


@pytest.mark.parametrize("kind", ["cosine", "correlation"])
def test_columns_of_any_size_have_a_direction(features: np.ndarray, kind: str) -> None:
    """Dead units of a published encoder are about 1e-32; their squares are 0 in float32."""
    features = features - features.min(axis=0)
    features[:, ::3] *= 1e-32
    fitted = fit_scaling("log", describe(features))
    found = distances(gram_matrix(features, fitted, kind), kind)
    expected = squareform(pdist(np.log1p(features.astype(np.float64)).T, kind))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    gram = Gram(np.diag([1.0, 0.0, 1.0]), np.zeros(3), 10)
    with pytest.raises(UserError, match="the first is 1: there is no"):
        distances(gram, kind)


def test_affinities_have_the_perplexity(features: np.ndarray) -> None:
    distance = squareform(pdist(features.T, "correlation")).astype(np.float32)
    joint = affinities(distance, 10.0, all_pairs=True).toarray()
    assert abs(joint.sum() - 1) < 1e-5 and np.allclose(joint, joint.T)
    from sklearn.manifold import _t_sne  # its own bisection, over all pairs and over neighbours

    expected = squareform(_t_sne._joint_probabilities(distance.astype(np.float64) ** 2, 10.0, 0))
    np.testing.assert_allclose(joint, expected, atol=2e-7)
    nearest = csr_matrix(np.where(distance <= np.sort(distance, axis=1)[:, 30:31], distance**2, 0))  # and oneself
    expected = _t_sne._joint_probabilities_nn(nearest, 10.0, 0).toarray()
    np.testing.assert_allclose(affinities(distance, 10.0).toarray(), expected, atol=2e-7)


def layouts(features: np.ndarray) -> dict[str, np.ndarray]:
    """Distances [D, D] of clouds that are hard in different ways."""
    rng = np.random.default_rng(0)
    clouds = {
        "columns": features.T - features.mean(axis=0)[:, None],
        "separate": np.concatenate([rng.normal(size=(60, 5)) + 100 * rng.normal(size=5) for _ in range(3)]),
        "noise": rng.normal(size=(150, 80)),
        "line": np.linspace(0, 1, 100)[:, None] + 1e-3 * rng.normal(size=(100, 3)),
    }
    return {name: squareform(pdist(cloud)).astype(np.float32) for name, cloud in clouds.items()}


@pytest.mark.parametrize("cloud, init", [
    ("columns", "pca"), ("columns", "random"), ("separate", "random"),
    ("noise", "pca"), ("line", "random"),
])  # fmt: skip
def test_tsne_reaches_the_divergence_of_gradient_descent(features: np.ndarray, cloud: str, init: str) -> None:
    distance = layouts(features)[cloud]
    joint = affinities(distance, 10.0)
    ours, divergence = embed_features(distance, "tsne", 10.0, init, 0)
    _, theirs = embed_features(distance, "sklearn", 10.0, init, 0)
    assert divergence == kl_divergence(joint, ours) and divergence <= 1.02 * theirs + 0.05
    if cloud == "columns":
        nearest = squareform(pdist(ours)) + np.diag(np.full(120, np.inf))
        assert np.mean(nearest.argmin(axis=1) // 10 == np.arange(120) // 10) > 0.9  # columns of a group lie together


def test_exact_engine_over_all_pairs(features: np.ndarray) -> None:
    distance = squareform(pdist(features.T, "correlation")).astype(np.float32)
    ours, divergence = embed_features(distance, "tsne_exact", 10.0, "pca", 0, compiled)
    _, theirs = embed_features(distance, "sklearn_exact", 10.0, "pca", 0)
    assert divergence == kl_divergence(affinities(distance, 10.0, True), ours) and divergence <= theirs + 0.05


def test_divergence_by_hand_and_its_gradient() -> None:
    p = np.array([[0, 0.3, 0.1], [0.3, 0, 0.1], [0.1, 0.1, 0]], np.float32)
    joint = csr_matrix(p)
    points = np.array([[0.0, 0], [1, 0], [0, 2]])
    w = 1 / (1 + squareform(pdist(points)) ** 2) - np.eye(3)
    q = w / w.sum()
    off = ~np.eye(3, dtype=bool)
    by_hand = float((p[off] * np.log(p[off] / q[off])).sum())
    assert kl_divergence(joint, points) == pytest.approx(by_hand, abs=1e-6)
    difference = points[:, None] - points
    gradient = 4 * np.einsum("ij,ijk->ik", (p - q) * w, difference)  # Eq. 5
    value, slope = exact(joint)(points)
    assert value == pytest.approx(-float((p[off] * np.log(q[off])).sum()), abs=1e-6)
    np.testing.assert_allclose(slope, gradient, atol=1e-6)
    for objective in (exact(joint, compiled), interpolated(joint)):
        reached = descend(joint, 1e-1 * points, objective)
        assert kl_divergence(joint, reached) < 1e-3  # three points can be laid out without loss


@pytest.mark.parametrize("width", [0.3, 3.0, 10.0])
def test_interpolated_potential_and_its_derivative(width: float) -> None:
    points = width * np.random.default_rng(0).normal(size=(500, 2))
    value, slope = potential(points)
    difference = points[:, None] - points
    kernel = 1 / (1 + np.square(difference).sum(axis=-1))
    np.testing.assert_allclose(value, kernel.sum(axis=1), rtol=4e-3, atol=0.02)
    assert abs(value.sum() / kernel.sum() - 1) < 3e-3
    expected = -2 * np.einsum("ij,ijk->ik", np.square(kernel), difference)
    assert np.linalg.norm(slope - expected) < 0.03 * np.linalg.norm(expected)
    step = 1e-2 * np.random.default_rng(1).normal(size=points.shape)  # twice the slope: both points of a pair move
    change = potential(points + step)[0].sum() - potential(points - step)[0].sum()
    assert change == pytest.approx(4 * float((slope * step).sum()), rel=2e-3, abs=1e-2)


def test_principal_coordinates_are_principal_components(features: np.ndarray) -> None:
    distance = squareform(pdist(features.T)).astype(np.float32)
    found = principal_coordinates(distance)
    centred = features.T.astype(np.float64) - features.T.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :2] * s[:2]), rtol=1e-2, atol=1e-2)
    assert kernel_principal_components(distance).shape == (120, 2)


@pytest.fixture(scope="module")
def pixel_map(features: np.ndarray) -> Layout:
    return Layout.fit(features, LayoutConfig(8, 13, perplexity=10.0), compiled)


def test_images_are_means_of_scaled_features(features: np.ndarray, pixel_map: Layout) -> None:
    images = pixel_map.transform(features[:5])
    scaled = pixel_map.scaling.apply(features[:5])
    expected = np.zeros((5, 8, 13))
    for row in range(8):
        for column in range(13):
            here = [d for d in range(120) if tuple(pixel_map.pixels[d]) == (row, column)]
            if here:
                expected[:, row, column] = scaled[:, here].mean(axis=1)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    counts = pixel_map.counts()
    assert counts.sum() == 120 and pixel_map.figures()["filled"] == (counts > 0).sum()
    alone = counts[tuple(pixel_map.pixels.T)] == 1
    np.testing.assert_allclose(pixel_map.inverse(images)[:, alone], features[:5, alone], atol=1e-4)
    assert pixel_map.pixels.min(axis=0).tolist() == [0, 0] and pixel_map.pixels.max(axis=0).tolist() == [7, 12]


def test_a_channel_for_each_group_of_features(features: np.ndarray, pixel_map: Layout) -> None:
    channel_of = np.random.default_rng(1).integers(0, 3, 120)
    images = pixel_map.transform(features[:5], channel_of=channel_of)
    scaled = pixel_map.scaling.apply(features[:5])
    expected = np.zeros((5, 8, 13, 3))
    for row, column, channel in {(*pixel_map.pixels[d].tolist(), int(channel_of[d])) for d in range(120)}:
        here = (pixel_map.pixels == (row, column)).all(axis=1) & (channel_of == channel)
        expected[:, row, column, channel] = scaled[:, here].mean(axis=1)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    one = pixel_map.transform(features[:5], channel_of=np.zeros(120, int))
    np.testing.assert_array_equal(one[..., 0], pixel_map.transform(features[:5]))


def test_channels_become_three_by_fixed_averages() -> None:
    assert mixing(6).shape == (6, 3)
    np.testing.assert_allclose(mixing(6)[:, 0], [2**-0.5] * 2 + [0] * 4, rtol=1e-6)
    np.testing.assert_array_equal(mixing(3), np.eye(3))
    np.testing.assert_allclose(mixing(2), [[1, 2**-0.5, 0], [0, 2**-0.5, 1]], rtol=1e-6)
    np.testing.assert_array_equal(mixing(1), np.ones((1, 3)))
    images = np.random.default_rng(0).normal(1.0, 2.0, (4, 5, 5, 6)).astype(np.float32)
    found = np.asarray(prepare(images, Normalization(1.0, 2.0), 2))
    assert found.shape == (4, 10, 10, 3)
    np.testing.assert_allclose(found[:, ::2, 1::2, 1], (images[..., 2] + images[..., 3] - 2) / 2 / 2**0.5, atol=1e-5)
    gray = prepare(images[..., 0], Normalization(1.0, 2.0), 2)
    np.testing.assert_allclose(prepare(images[..., :1], Normalization(1.0, 2.0), 2), gray, atol=1e-6)


def test_saved_and_loaded(tmp_path: Path, features: np.ndarray, pixel_map: Layout) -> None:
    pixel_map.save(tmp_path / "m.safetensors")
    loaded = Layout.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.transform(features), pixel_map.transform(features))
    assert loaded.config == pixel_map.config and loaded.divergence == pixel_map.divergence
    (tmp_path / "m.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        Layout.load(tmp_path / "m.safetensors")


def test_only_training_rows_are_seen(features: np.ndarray, pixel_map: Layout) -> None:
    again = Layout.fit(features.copy(), pixel_map.config, compiled)
    np.testing.assert_array_equal(again.pixels, pixel_map.pixels)  # repeatable
    before = pixel_map.pixels.copy()
    pixel_map.transform(1e6 * features[::-1])
    np.testing.assert_array_equal(pixel_map.pixels, before)


def test_assignment_gives_every_feature_its_pixel(features: np.ndarray) -> None:
    config = LayoutConfig(11, 11, engine="pca", distance="euclidean", pixels="assignment")
    pixel_map = Layout.fit(features, config)
    assert pixel_map.counts().max() == 1
    np.testing.assert_allclose(pixel_map.inverse(pixel_map.transform(features)), features, atol=1e-4)
    shuffled = pixel_map.shuffled(0)
    assert shuffled.counts().sum() == 120 and not np.array_equal(shuffled.pixels, pixel_map.pixels)
    np.testing.assert_allclose(np.sort(shuffled.transform(features)[0], axis=None),
                               np.sort(pixel_map.transform(features)[0], axis=None))  # fmt: skip


def test_the_author_s_cells_hold_extremes_only(features: np.ndarray) -> None:
    config = LayoutConfig(9, 9, engine="pca", distance="euclidean", pixels="points")
    counts = Layout.fit(features, config).counts()
    assert counts[-1].sum() <= 2 and counts[:, -1].sum() <= 2  # of 120


def _with(features: np.ndarray, column: int, values: object) -> np.ndarray:
    changed = features.copy()
    changed[:, column] = values
    return changed


@pytest.mark.parametrize("change, config, message", [
    (lambda f: _with(f, 7, 3.0), {}, "1 constant feature.*first is 7 with value 3"),
    (lambda f: _with(f, 7, np.nan), {}, "feature 7 is not finite"),
    (lambda f: _with(f, 7, f[:, 9]), {}, "features 7 and 9 are equal"),
    (lambda f: f, {"perplexity": 50.0}, "120 features are too few for a perplexity of 50.*at most 39"),
    (lambda f: f, {"pixels": "assignment"}, "8×13 = 104 pixels are too few.*a square of 11"),
    (lambda f: f, {"engine": "isomap"}, "engine='isomap' is not known: use one of tsne, "),
    (lambda f: f, {"distance": "cityblock"}, "distance='cityblock' is not known"),
    (lambda f: f, {"scaling": "rank"}, "scaling='rank' is not known"),
    (lambda f: f, {"height": 0}, "height=0: 1 or more"),
    (lambda f: f[:1], {}, "at least two rows"),
])  # fmt: skip
def test_bad_input(features: np.ndarray, change: object, config: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout.fit(change(features), LayoutConfig(**({"height": 8, "width": 13, "perplexity": 10.0} | config)))  # type: ignore[operator]


def test_another_number_of_features(pixel_map: Layout) -> None:
    with pytest.raises(UserError, match="the map holds 120 features"):
        pixel_map.transform(np.zeros((2, 119), np.float32))


def test_a_fingerprint_is_of_all_that_images_depend_on(tmp_path: Path, pixel_map: Layout) -> None:
    def with_scaling(**parts: Any) -> Layout:
        return dataclasses.replace(pixel_map, scaling=pixel_map.scaling._replace(**parts))

    scaling, pixels = pixel_map.scaling, pixel_map.pixels.copy()
    pixels[3] = (pixels[3] + 1) % 8
    others = [
        pixel_map,
        pixel_map.shuffled(0),
        dataclasses.replace(pixel_map, pixels=pixels),
        dataclasses.replace(pixel_map, config=dataclasses.replace(pixel_map.config, height=9)),
        with_scaling(kind="min_max"),
        with_scaling(low=scaling.low + 1, center=scaling.center),
        with_scaling(center=scaling.center + 1),
        with_scaling(width=scaling.width + 1),
        with_scaling(center=scaling.width, width=scaling.center),
    ]
    assert len({other.fingerprint() for other in others}) == len(others)
    same = dataclasses.replace(pixel_map, pixels=pixel_map.pixels.astype(np.int32), points=pixel_map.points + 1)
    pixel_map.save(tmp_path / "m.safetensors")
    for again in (same, Layout.load(tmp_path / "m.safetensors")):
        assert again.fingerprint() == pixel_map.fingerprint()


def test_a_saved_map_knows_its_key(tmp_path: Path, pixel_map: Layout) -> None:
    pixel_map.save(tmp_path / "m.safetensors", "one")
    for key in ("", "one"):
        assert Layout.load(tmp_path / "m.safetensors", key).fingerprint() == pixel_map.fingerprint()
    with pytest.raises(UserError, match=r"m\.safetensors: a pixel map of another key, 'one'"):
        Layout.load(tmp_path / "m.safetensors", "two")
