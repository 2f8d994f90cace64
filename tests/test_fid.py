"""The Fréchet distance: closed forms, 60 digits, singular covariances, any split into batches, bad input."""

import decimal
import json
import tracemalloc
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from diffusion.fid import frechet as fid
from diffusion.fid import statistics
from diffusion.fid.frechet import Moments, Reference, fit_gaussian, frechet_distance, frechet_distance_of_features
from diffusion.fid.statistics import Statistics
from files.errors import UserError


def _usual(mean_1: np.ndarray, cov_1: np.ndarray, mean_2: np.ndarray, cov_2: np.ndarray) -> float:
    """The formula as pytorch-fid, torch-fidelity and clean-fid write it, with a matrix square root."""
    root = scipy.linalg.sqrtm(cov_1 @ cov_2)
    return float(((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2) - 2 * np.trace(root).real)


def _features(count: int, width: int, seed: int) -> np.ndarray:
    """Correlated, with a spectrum that falls by four orders, and a mean that is not 0."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    scale = np.logspace(0, -2, width) * (1 + 0.1 * seed)
    return (rng.normal(size=(count, width)) * scale @ basis + 0.5 + 0.05 * seed).astype(np.float32)


def test_commuting_gaussians_in_closed_form() -> None:
    """Σ_1 = Q diag(a) Qᵀ and Σ_2 = Q diag(b) Qᵀ: the distance is |μ|² + Σ (√a − √b)²."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    a, b, mean = rng.uniform(0, 3, 40), rng.uniform(0, 3, 40), rng.normal(size=40)
    a[:5] = 0.0  # singular
    expected = (mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(mean, (q * a) @ q.T, np.zeros(40), (q * b) @ q.T)
    assert found == pytest.approx(expected, rel=1e-7)


def test_two_by_two_by_hand() -> None:
    """Tr √(Σ_1Σ_2) of 2×2 matrices is √(Tr Σ_1Σ_2 + 2√det)."""
    one, two = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    root = np.sqrt(np.trace(one @ two) + 2 * np.sqrt(np.linalg.det(one) * np.linalg.det(two)))
    expected = 25.0 + 5.0 + 5.0 - 2 * root
    assert frechet_distance(np.array([3.0, 4.0]), one, np.zeros(2), two) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [400, 40])
def test_equals_the_usual_formula(count: int) -> None:
    """With more images than features, and with fewer, where both covariances are singular."""
    width = 120
    x, y = _features(count, width, 0), _features(count + 7, width, 1)
    arguments = (*fit_gaussian(x), *fit_gaussian(y))
    expected = _usual(*arguments)
    assert frechet_distance(*arguments) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=1e-6)


def test_few_against_many() -> None:
    x, y = _features(30, 60, 0), _features(500, 60, 1)
    expected = frechet_distance(*fit_gaussian(x), *fit_gaussian(y))
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance_of_features(y, x) == pytest.approx(expected, rel=1e-7)


def _sixty_digits(x: np.ndarray, y: np.ndarray) -> float:
    """The distance of features in decimal arithmetic; eigenvalues by Jacobi's rotations."""
    with decimal.localcontext(prec=60):
        sides, means = [], []
        for features in (x, y):
            rows = [[Decimal(float(value)) for value in row] for row in features]
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            scale = (1 / Decimal(len(rows) - 1)).sqrt()
            sides.append([[scale * (value - m) for value, m in zip(row, mean, strict=True)] for row in rows])
            means.append(mean)
        a, b = sides
        cross = [[sum(p * q for p, q in zip(one, two, strict=True)) for two in b] for one in a]
        gram = [[sum(p * q for p, q in zip(one, two, strict=True)) for two in cross] for one in cross]
        nuclear = sum(max(value, Decimal(0)).sqrt() for value in _eigenvalues(gram))
        traces = sum(value * value for side in sides for row in side for value in row)
        between = sum((p - q) ** 2 for p, q in zip(*means, strict=True))
        return float(between + traces - 2 * nuclear)


def _eigenvalues(matrix: list[list[Decimal]], sweeps: int = 12) -> list[Decimal]:
    n = len(matrix)
    for _ in range(sweeps):
        for p in range(n):
            for q in range(p + 1, n):
                if not matrix[p][q]:
                    continue
                theta = (matrix[q][q] - matrix[p][p]) / (2 * matrix[p][q])
                t = (1 if theta >= 0 else -1) / (abs(theta) + (theta * theta + 1).sqrt())
                c = 1 / (t * t + 1).sqrt()
                for row in matrix:  # A ← A J
                    row[p], row[q] = c * row[p] - t * c * row[q], t * c * row[p] + c * row[q]
                one, two = matrix[p], matrix[q]  # A ← Jᵀ A
                matrix[p] = [c * u - t * c * v for u, v in zip(one, two, strict=True)]
                matrix[q] = [t * c * u + c * v for u, v in zip(one, two, strict=True)]
    return [matrix[k][k] for k in range(n)]


@pytest.mark.parametrize("counts", [(2, 2), (2, 9), (9, 2), (3, 4), (6, 9), (9, 7), (5, 6)])
@pytest.mark.parametrize("kind", ["plain", "dead", "dependent", "scales", "shifted"])
def test_against_sixty_digits(counts: tuple[int, int], kind: str) -> None:
    """Whichever side is the larger, and whichever is prepared; with covariances that are singular, too."""
    x, y = (np.random.default_rng(k).normal(size=(count, 5)) for k, count in enumerate(counts))
    for side in (x, y):
        if kind == "dead":
            side[:, [1, 3]] = 0.25
        if kind == "dependent":
            side[:, 4] = side[:, 0] - 2 * side[:, 2]
        if kind == "scales":
            side *= np.array([1e3, 1.0, 1e-3, 10.0, 0.1])
        if kind == "shifted":
            side += 1000.0
    expected = _sixty_digits(x, y)
    gaussians = frechet_distance(*fit_gaussian(x), *fit_gaussian(y))
    for found in (frechet_distance_of_features(x, y), frechet_distance_of_features(y, x), gaussians,
                  Reference.of_features(x).distance(y), Reference.of_features(y).distance(x)):  # fmt: skip
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_reference_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The factor of many images is computed for the first distance, and serves the others."""
    factored: list[int] = []
    cholesky = fid._cholesky

    def counted(cov: np.ndarray) -> np.ndarray:
        factored.append(len(cov))
        return cholesky(cov)

    monkeypatch.setattr(fid, "_cholesky", counted)
    real, fakes = _features(300, 60, 0), [_features(count, 60, count) for count in (2, 30, 60, 61, 400)]
    reference = Reference.of_features(real)
    found = [reference.distance(fake) for fake in fakes]
    assert factored == [60]
    monkeypatch.undo()
    for fake, distance in zip(fakes, found, strict=True):
        expected = frechet_distance(*fit_gaussian(real), *fit_gaussian(fake))
        assert distance == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("count", [20, 200])
def test_counts_are_repetitions(count: int) -> None:
    """Of few images, and of more images than features; some images are not there at all."""
    reference, fake = Reference.of_features(_features(150, 40, 0)), _features(count, 40, 1)
    counts = np.random.default_rng(0).integers(0, 4, count)
    assert (counts == 0).any()
    repeated = reference.distance(np.repeat(fake, counts, axis=0))
    assert reference.distance(fake, counts) == pytest.approx(repeated, rel=1e-9)
    with pytest.raises(UserError, match=r"^1 image\(s\) have no covariance"):
        reference.distance(fake, np.arange(count) == 3)


def test_many_images_are_never_whole_in_memory() -> None:
    """In float64 the larger side is 16 MB."""
    many, few = _features(100_000, 20, 0), _features(10, 20, 1)
    tracemalloc.start()
    frechet_distance_of_features(many, few)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6


def test_images_that_are_all_the_same() -> None:
    """Their covariance is 0 and has no factor."""
    same, others = np.ones((5, 3)), np.random.default_rng(0).normal(size=(40, 3))
    mean, cov = fit_gaussian(others)
    expected = ((mean - 1) ** 2).sum() + np.trace(cov)
    assert frechet_distance_of_features(same, others) == pytest.approx(expected, rel=1e-12)
    assert Reference.of_features(same).distance(others) == pytest.approx(expected, rel=1e-12)
    assert Reference.of_features(others).distance(same) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance_of_features(same[:2], others) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance_of_features(same, same) == 0.0


def test_a_set_is_at_no_distance_from_itself() -> None:
    for count in (30, 300):
        x = _features(count, 60, 0)
        assert frechet_distance_of_features(x, x) < 1e-6
        assert frechet_distance(*fit_gaussian(x), *fit_gaussian(x)) < 1e-6


@pytest.mark.parametrize("batches", [[1] * 100, [100], [7, 50, 43], [99, 1]])
def test_moments_of_any_split(batches: list[int]) -> None:
    x = _features(100, 20, 0).astype(np.float64) + 1000.0
    moments, start = Moments(), 0
    for size in batches:
        moments.add(x[start : start + size])
        start += size
    np.testing.assert_allclose(moments.mean(), x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T), rtol=1e-10, atol=1e-12)


def test_bad_features_and_statistics(tmp_path: Path) -> None:
    x = _features(10, 4, 0)
    bad = x.copy()
    bad[6, 2] = np.nan
    moments = Moments()
    moments.add(x)
    with pytest.raises(UserError, match="image 17 has features that are not finite"):
        moments.add(bad)
    with pytest.raises(UserError, match="width 3 and 4"):
        moments.add(x[:, :3])
    single = Moments()
    single.add(x[:1])
    with pytest.raises(UserError, match=r"1 image\(s\) have no covariance"):
        single.covariance()
    for real in (x, _features(3, 4, 1)):  # more images than features, and fewer
        reference = Reference.of_features(real)
        with pytest.raises(UserError, match="width 3 and 4"):
            reference.distance(x[:, :3])
        with pytest.raises(UserError, match=r"1 image\(s\) have no covariance"):
            reference.distance(x[:1])
        for some in (bad, bad[4:7]):
            with pytest.raises(UserError, match=r"image [37] has features that are not finite"):
                reference.distance(some)
    with pytest.raises(UserError, match="image 3 has features that are not finite"):
        Reference.of_features(bad[4:7])
    mean, cov = fit_gaussian(x)
    with pytest.raises(UserError, match="different dimensions"):
        frechet_distance(mean, cov, mean[:2], cov[:2, :2])
    with pytest.raises(UserError, match="covariance is not finite"):
        frechet_distance(mean, cov * np.inf, mean, cov)


def _statistics(mode: str = "tf2015", weights: str = "abc", width: int = 4) -> Statistics:
    return Statistics(*fit_gaussian(_features(10, width, 0)), 10, {"mode": mode, "weights_hash": weights})


def test_statistics_files(tmp_path: Path) -> None:
    ours = _statistics()
    statistics.save(tmp_path / "a.npz", ours)
    loaded = statistics.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.covariance, ours.covariance)
    assert (loaded.count, loaded.provenance) == (10, ours.provenance) and statistics.is_statistics(tmp_path / "a.npz")
    np.savez(tmp_path / "foreign.npz", mu=ours.mean, sigma=ours.covariance)  # pytorch-fid's and clean-fid's form
    with pytest.raises(
        UserError, match=r"does not say which tool's statistics it has, .* --statistics_of= with one of"
    ):
        statistics.load(tmp_path / "foreign.npz")
    foreign = statistics.load(tmp_path / "foreign.npz", "pytorch-fid")
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8))
    assert not statistics.is_statistics(tmp_path / "images.npz")
    for other, message in (
        (_statistics("keras"), "statistics of different protocols, tf2015 and keras"),
        (_statistics("tf2015-random"), "different protocols"),
        (_statistics(weights="xyz"), "statistics of different weights"),
        (_statistics(width=3), "features of 4 and of 3 dimensions"),
    ):
        with pytest.raises(UserError, match=message):
            statistics.check_comparable(ours, other)
    with pytest.raises(UserError, match=r"different protocols, keras and pytorch-fid-4 \(pytorch-fid's\)"):
        statistics.check_comparable(_statistics("keras"), foreign)
    np.savez(tmp_path / "bad.npz", mu=ours.mean, sigma=ours.covariance[:2])
    with pytest.raises(UserError, match=r"must be \[D\] and \[D, D\]"):
        statistics.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "nan.npz", mu=ours.mean * np.nan, sigma=ours.covariance)
    with pytest.raises(UserError, match="not finite"):
        statistics.load(tmp_path / "nan.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.npz: not a readable npz file"):
        statistics.load(tmp_path / "cut.npz")
    assert json.loads(json.dumps(ours.provenance)) == ours.provenance


@pytest.mark.parametrize(("place", "name"), [(0, "mean"), (1, "covariance"), (2, "mean"), (3, "covariance")])
def test_each_part_of_two_gaussians_is_checked(place: int, name: str) -> None:
    gaussians = [np.zeros(2), np.eye(2), np.zeros(2), np.eye(2)]
    gaussians[place] = gaussians[place] + np.nan
    with pytest.raises(UserError, match=rf"^a {name} is not finite; "):
        frechet_distance(*gaussians)
    gaussians[place] = np.zeros(3) if name == "mean" else np.eye(3)
    with pytest.raises(UserError, match=r"^statistics of different dimensions: means \([23],\) and \([23],\), cov"):
        frechet_distance(*gaussians)


def test_moments_with_counts_by_hand() -> None:
    """Batches of images that are there several times; the mean of one image, and how many there are."""
    x, counts = _features(9, 3, 0).astype(np.float64), np.array([2, 1, 3, 1, 1, 4, 1, 2, 1])
    moments = Moments()
    moments.add(x[:4], counts[:4])
    np.testing.assert_allclose(moments.mean(), np.average(x[:4], axis=0, weights=counts[:4]), rtol=1e-12)
    moments.add(x[4:], counts[4:])
    moments.add(x[:2])
    rows = np.concatenate([np.repeat(x, counts, axis=0), x[:2]])
    assert moments.count == len(rows) == 18 and isinstance(moments.count, int)
    np.testing.assert_allclose(moments.mean(), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.T), rtol=1e-10)
    for block in (1, 4, 5000):  # a block may have no image that is there
        found = fit_gaussian(x, counts * (np.arange(9) > 3), block)
        np.testing.assert_allclose(found.mean, np.average(x[4:], axis=0, weights=counts[4:]), rtol=1e-12)
    single = Moments()
    single.add(x[:1])
    np.testing.assert_array_equal(single.mean(), x[0])


def test_factors_by_hand() -> None:
    """L Lᵀ = Σ of rank 2, its columns as many; Tr Σ; and a nuclear norm."""
    cov = np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
    factor = fid._cholesky(cov)
    assert factor.shape == (3, 2)
    np.testing.assert_allclose(factor @ factor.T, cov, atol=1e-12)
    assert Reference.of_gaussian(np.zeros(3), cov).trace == 14.0
    assert fid._nuclear_norm(np.array([[3.0, 0.0], [0.0, -4.0]])) == pytest.approx(7.0)
    assert fid._nuclear_norm(np.zeros((0, 4))) == 0.0
    rows = _features(4, 6, 0).astype(np.float64)
    centred = fid._centred(rows, np.array([2, 0, 1, 1]))
    np.testing.assert_allclose(centred.rows.T @ centred.rows, np.cov(rows[[0, 0, 2, 3]].T), atol=1e-12)
    np.testing.assert_allclose(centred.mean, rows[[0, 0, 2, 3]].mean(axis=0), rtol=1e-12)
