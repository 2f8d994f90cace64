"""The Fréchet distance: closed forms, the usual formula, singular covariances, any split into batches, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from diffusion import quality, statistics
from diffusion.fid import Moments, fit_gaussian, frechet_distance, frechet_distance_of_features
from diffusion.statistics import Statistics
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
    foreign = statistics.load(tmp_path / "foreign.npz")
    assert "taken for tf2015" in statistics.check_comparable(ours, foreign)[0]
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8))
    assert not statistics.is_statistics(tmp_path / "images.npz")
    for other, message in (
        (_statistics("keras"), "statistics of different modes, tf2015 and keras"),
        (_statistics("tf2015-random"), "different modes"),
        (_statistics(weights="xyz"), "statistics of different weights"),
        (_statistics(width=3), "features of 4 and of 3 dimensions"),
    ):
        with pytest.raises(UserError, match=message):
            statistics.check_comparable(ours, other)
    with pytest.raises(UserError, match="different modes, keras and foreign"):
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


def test_kid_by_hand_and_on_equal_distributions() -> None:
    x, y = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
    k = lambda a, b: (a @ b / 2 + 1) ** 3  # noqa: E731
    expected = k(x[0], x[1]) + k(y[0], y[1]) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert quality.kernel_inception_distance(x, y, subsets=3)[0] == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(0)
    same = quality.kernel_inception_distance(*rng.normal(size=(2, 3000, 16)), subsets=20, size=500)
    assert abs(same[0]) < 4 * same[1] + 2e-3
    other = quality.kernel_inception_distance(
        rng.normal(size=(800, 16)), rng.normal(0.5, 1, (800, 16)), subsets=20, size=500
    )
    assert other[0] > 20 * other[1] > 0
    with pytest.raises(UserError, match="too few for KID"):
        quality.kernel_inception_distance(x[:1], y)


def test_precision_recall_density_coverage_by_hand() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # distances to the nearest: 1, 1, 1, 8
    fake = np.array([[0.5], [1.4], [50.0]])  # 0.9, 0.9, 48.6
    found = quality.precision_recall_density_coverage(real, fake, k=1)
    # 0.5 lies in the balls of 0 and 1; 1.4 in those of 1 and 2 (and not 10's: 8.6 > 8); 50 in none.
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    assert found["coverage"] == pytest.approx(3 / 4)  # 10 covers nothing
    # Balls of fakes: (−0.4, 1.4), (0.5, 2.3), (1.4, 98.6): they hold 0; 1; 2; 10.
    assert found["recall"] == 1.0
    with pytest.raises(UserError, match="too few for the 5 nearest"):
        quality.precision_recall_density_coverage(real, fake)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(50, 3)), rng.normal(size=(40, 3))
    whole = quality.precision_recall_density_coverage(real, fake)
    monkeypatch.setattr(quality, "_BLOCK", 7)
    assert quality.precision_recall_density_coverage(real, fake) == whole


def test_inception_score_of_certain_and_uncertain_classes() -> None:
    certain = np.tile(np.eye(5) * 100, (20, 1))
    assert quality.inception_score(certain, 4)[0] == pytest.approx(5.0)  # every split has all five
    assert quality.inception_score(np.zeros((100, 5)))[0] == pytest.approx(1.0)
    with pytest.raises(UserError, match="too few for 10 splits"):
        quality.inception_score(np.zeros((5, 5)))


def test_extrapolation_and_interval_free_the_distance_from_its_bias() -> None:
    """Two samples of one distribution: FID is far above the true 0, its extrapolation and its interval are not."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(20000, 20)), rng.normal(size=(400, 20))
    plain = frechet_distance_of_features(real, fake)
    assert plain > 0.2
    assert abs(quality.fid_infinity(real, fake)) < 0.25 * plain
    low, high = quality.bootstrap_interval(real, fake, resamples=30)
    assert low < high < plain and low < 0.1
    assert quality.fid_infinity(real, fake, 1) == quality.fid_infinity(real, fake, 1)
    with pytest.raises(UserError, match="too few to extrapolate"):
        quality.fid_infinity(real, fake[:20])


def test_figures_by_name_are_left_out_where_they_cannot_be_had() -> None:
    x, y = _features(40, 8, 0), _features(30, 8, 1)
    names = {"kid": {"kid", "kid_standard_error"}, "prdc": {"precision", "recall", "density", "coverage"},
             "is": {"inception_score", "inception_score_sd"}}  # fmt: skip
    found = {name: set(compute(quality.Compared(x, y, y))) for name, compute in quality.METRICS.items()}
    assert found == names
    statistics_only = quality.Compared(None, y, y[:5])
    assert not any(compute(statistics_only) for compute in quality.METRICS.values())
    assert not quality.METRICS["prdc"](quality.Compared(x[:5], y, None))
