"""Who is near whom in features: by hand and by brute force, on ties and copies, class by class, in little memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffusion.fid import distances
from diffusion.fid.by_class import fid_by_class, precision_recall_by_class
from diffusion.fid.frechet import frechet_distance_of_features
from diffusion.fid.memorisation import memorisation
from diffusion.fid.neighbours import nearest
from diffusion.fid.prdc import precision_recall, precision_recall_density_coverage
from files.errors import UserError


def _brute_force(real: np.ndarray, fake: np.ndarray, k: int = 3, density_k: int = 5) -> dict[str, float]:
    """Precision and recall, density and coverage as the papers define them."""
    between = cdist(real, fake)

    def radius(points: np.ndarray, neighbours: int) -> np.ndarray:
        within = cdist(points, points)
        np.fill_diagonal(within, np.inf)
        return np.sort(within, axis=1)[:, neighbours - 1]

    dense = between <= radius(real, density_k)[:, None]
    return {
        "precision": (between <= radius(real, k)[:, None]).any(axis=0).mean(),
        "recall": (between <= radius(fake, k)[None]).any(axis=1).mean(),
        "density": dense.sum(axis=0).mean() / density_k,
        "coverage": dense.any(axis=1).mean(),
    }


def _sets(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(90, 6)), rng.normal(0.2, 1.1, size=(70, 6))
    match kind:
        case "grid":  # many distances are equal, and in float32 they are exact
            real, fake = np.round(real), np.round(fake)
        case "large mean":
            real, fake = (real + 1e4).astype(np.float32), (fake + 1e4).astype(np.float32)
        case "copies":
            real, fake = np.repeat(real[:15], 6, axis=0), np.repeat(np.concatenate([real[:5], fake[:5]]), 7, axis=0)
        case "one picture":
            real, fake = np.tile(real[:1], (30, 1)), np.tile(real[:1], (20, 1))
        case "near":  # closer than float32 products tell apart
            real, fake = 100 + 1e-4 * real, 100 + 1e-4 * fake
            real[0], fake[0] = 0.0, 0.0
        case "small numbers":
            real, fake = 1e-30 * real, 1e-30 * fake
    return real, fake


KINDS = ["plain", "grid", "large mean", "copies", "one picture", "near", "small numbers"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [7, 2048])
def test_precision_recall_density_coverage_are_exact(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every single comparison is that of float64, in any blocks, though products are taken in float32."""
    monkeypatch.setattr(distances, "_BLOCK", block)
    real, fake = _sets(kind)
    assert precision_recall_density_coverage(real, fake) == pytest.approx(_brute_force(real, fake), rel=1e-12)
    expected = {name: _brute_force(fake, real)[name] for name in ("precision", "recall")}
    assert precision_recall(fake, real) == pytest.approx(expected, rel=1e-12)


def test_precision_recall_density_coverage_by_hand() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # distances to the nearest: 1, 1, 1, 8
    fake = np.array([[0.5], [1.4], [50.0]])  # 0.9, 0.9, 48.6
    found = precision_recall_density_coverage(real, fake, 1, 1)
    # 0.5 lies in the balls of 0 and 1; 1.4 in those of 1 and 2 (and not 10's: 8.6 > 8); 50 in none.
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    assert found["coverage"] == pytest.approx(3 / 4)  # 10 covers nothing
    # Balls of fakes: [−0.4, 1.4], [0.5, 2.3], [1.4, 98.6]: they hold 0; 1; 2; 10.
    assert found["recall"] == 1.0
    edge = precision_recall_density_coverage(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]), 1, 1)
    assert edge == {"precision": 0.5, "recall": 0.5, "density": 0.5, "coverage": 0.5}  # 2 and 1 are on each other's
    with pytest.raises(UserError, match="3 images are too few for the 5 nearest"):
        precision_recall_density_coverage(real, fake)


def test_each_figure_has_its_authors_neighbours() -> None:
    """Three for precision and recall, five for density and coverage."""
    real, fake = _sets("plain")
    found = precision_recall_density_coverage(real, fake)
    three, five = (precision_recall_density_coverage(real, fake, k, k) for k in (3, 5))
    assert found == {name: (five if name in ("density", "coverage") else three)[name] for name in found}
    assert three["precision"] < five["precision"] and three["density"] != five["density"]


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_a_set_has_all_of_itself(copies: int) -> None:
    """With copies of every image, too, where the balls have no radius."""
    x = np.repeat(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32), copies, axis=0)
    found = precision_recall_density_coverage(x, x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0) and found["density"] >= 1.0


def test_neighbours_take_a_few_blocks_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All distances of 2,000 images are 16 MB in float32."""
    monkeypatch.setattr(distances, "_BLOCK", 200)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    precision_recall_density_coverage(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_features_that_are_not_finite() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    bad = x.copy()
    bad[7, 1] = np.nan
    for sets in ((x, bad), (bad, x)):
        with pytest.raises(UserError, match="image 8 has features that are not finite"):
            precision_recall_density_coverage(*sets)
    with pytest.raises(UserError, match="image 1 has features that are not finite, or too large"):
        memorisation(x, x * 1e30)


def test_memorisation_by_brute_force() -> None:
    """A sample is authentic if another training image is nearer to its nearest training image."""
    train, fake = _sets("plain")
    fake = np.concatenate([fake, train[:4], train[5:9] + 1e-3])
    between, within = cdist(fake, train), cdist(train, train)
    np.fill_diagonal(within, np.inf)
    row = between.argmin(axis=1)
    found = memorisation(train.astype(np.float32), fake.astype(np.float32))
    np.testing.assert_array_equal(found.row, row)
    np.testing.assert_allclose(found.distance, between.min(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.authentic, between.min(axis=1) > within.min(axis=1)[row])
    assert found.copies.tolist() == [False] * 70 + [True] * 4 + [False] * 4
    assert 0 < found.authenticity < 1 and not found.authentic[70:].any()
    copied = memorisation(np.repeat(train, 2, axis=0), train)
    assert copied.authenticity == 0.0 and copied.copies.all()
    with pytest.raises(UserError, match="1 training and 78 generated"):
        memorisation(train[:1], fake)


def test_figures_of_each_class() -> None:
    real, fake = _sets("plain")
    real_labels = np.array(["cat", "dog"] * 44 + ["fish", "fish"])
    fake_labels = np.array(["dog"] * 40 + ["cat"] * 26 + ["bird"] * 3 + ["fish"])
    found = fid_by_class(real, real_labels, fake, fake_labels)
    assert list(found.figures) == ["cat", "dog"]
    expected = frechet_distance_of_features(real[real_labels == "dog"], fake[:40])
    assert found.figures["dog"]["fid"] == pytest.approx(expected, rel=1e-12)
    assert [note.rsplit(": ")[-1] for note in found.notes] == ["fish", "bird"]
    quality_of_dogs = precision_recall_by_class(real, real_labels, fake, fake_labels).figures["dog"]
    assert quality_of_dogs == precision_recall(real[real_labels == "dog"], fake[:40])
    few = fid_by_class(real[:, [0] * 50], real_labels, fake[:, [0] * 50], fake_labels)
    assert "only 26 images for 50 features" in few.notes[-1]
    with pytest.raises(UserError, match="90 real images and 89 labels"):
        fid_by_class(real, real_labels[:-1], fake, fake_labels)
    with pytest.raises(UserError, match="no class is in both sets: 1 and 2"):
        fid_by_class(real, np.ones(90, int), fake, np.full(70, 2))


def test_nearest_pixels_by_brute_force() -> None:
    """Of images in uint8, and of their mirror images; copies are at no distance."""
    rng = np.random.default_rng(0)
    train, images = rng.integers(0, 256, (60, 4, 5, 3), np.uint8), rng.integers(0, 256, (20, 4, 5, 3), np.uint8)
    images[3], images[4] = train[7], train[8][:, ::-1]
    flat, mirrored, among = (part.reshape(len(part), -1) / 255 for part in (images, images[:, :, ::-1], train))
    plain, other = (cdist(part, among) / np.sqrt(60) for part in (flat, mirrored))
    found, either = nearest(images, train), nearest(images, train, mirrored=True)
    np.testing.assert_array_equal(found.row, plain.argmin(axis=1))
    np.testing.assert_allclose(found.distance, plain.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(either.distance, np.minimum(plain, other).min(axis=1), rtol=1e-12)
    assert (found.distance[3], either.distance[4], either.row[4]) == (0.0, 0.0, 8)


def test_precision_and_recall_need_no_more_images_than_their_own_neighbours() -> None:
    """Four for three neighbours: the five of density are not asked for."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(4, 3)), rng.normal(0.5, 1.0, size=(5, 3))
    expected = _brute_force(real, fake, 3, 3)
    assert precision_recall(real, fake) == pytest.approx({name: expected[name] for name in ("precision", "recall")})
    with pytest.raises(UserError, match=r"^3 images are too few for the 3 "):
        precision_recall(real[:3], fake)
    with pytest.raises(UserError, match=r"^5 images are too few for the 5 "):
        precision_recall_density_coverage(rng.normal(size=(9, 3)), fake)
    assert precision_recall_density_coverage(rng.normal(size=(6, 3)), rng.normal(size=(6, 3))).keys() == expected.keys()


def test_figures_of_some_rows_are_those_of_the_sets_that_have_only_these() -> None:
    real, fake = _sets("plain")
    some, others = np.array([3, 4, 9, 20, 21, 40, 41, 60, 89]), np.arange(5, 45)
    for rows in ((some, others), (some, None), (None, others)):
        sides = [side if part is None else side[part] for side, part in zip((real, fake), rows, strict=True)]
        found = precision_recall_density_coverage(real, fake, rows=rows)
        assert found == pytest.approx(_brute_force(*sides), rel=1e-12)
