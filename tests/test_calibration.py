"""Temperatures, calibration errors and coverage: by hand, in closed form, and beside scipy and scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from tests.figures import drawn
from text_cls.evaluation import calibration
from text_cls.evaluation.calibration import (
    Claims,
    activated,
    calibration_error,
    coverage,
    describe,
    equal_mass,
    equal_width,
    errors,
    fit_temperature,
    negative_log_likelihood,
)
from text_cls.report import plots

SEVERAL = pytest.mark.parametrize("several", [False, True], ids=["one", "several"])


def _drawn(rows: int, several: bool, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from what they say at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, 5)).astype(np.float32)
    if several:
        return logits, (rng.random((rows, 5)) < expit(logits / temperature)).astype(np.uint8)
    chances = softmax(logits.astype(np.float64) / temperature, axis=1)
    return logits, (chances.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).astype(np.int32).clip(0, 4)


@SEVERAL
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(several: bool, temperature: float) -> None:
    logits, labels = _drawn(20_000, several, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


@SEVERAL
def test_it_minimises_the_likelihood_of_the_labels_and_one_row_more(several: bool) -> None:
    """scipy's search over the same sum: N rows, and the mean over rows of one whose label is any of the classes."""
    logits, labels = _drawn(40, several, 2.0)

    def cost(t: float) -> float:
        own = negative_log_likelihood(logits, labels, t)
        z = logits.astype(np.float64) / t
        of_any = -(np.log(expit(z)) + np.log(expit(-z))) / 2 if several else -log_softmax(z, axis=1)
        return own + of_any.mean() / len(logits)

    wanted = minimize_scalar(cost, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(logits, labels) == pytest.approx(wanted, rel=1e-5)


def test_two_classes_in_closed_form() -> None:
    """3 of 4 rows right at a margin of 2, and the added row half right: p = 3.5 / 5 = 1 / (1 + exp(-2 / T))."""
    logits = np.array([[2, 0]] * 4, np.float32)
    found = fit_temperature(logits, np.array([0, 0, 0, 1]))
    assert found == pytest.approx(2 / math.log(3.5 / 1.5))
    column = np.array([[2]] * 4, np.float32)
    assert fit_temperature(column, np.array([[1], [1], [1], [0]])) == pytest.approx(found)


@SEVERAL
def test_rows_without_a_mistake_do_not_make_it_certain(several: bool) -> None:
    """Of N right rows the likeliest T is 0; here it is where the model says what N rows allow to say."""
    rows = 10
    logits = np.tile(np.array([[1.0, -1.0]], np.float32), (rows, 1))
    labels = np.tile(np.array([[1, 0]], np.uint8), (rows, 1)) if several else np.zeros(rows, int)
    temperature = fit_temperature(logits, labels)
    assert activated(logits, several, temperature)[0, 0] == pytest.approx((rows + 0.5) / (rows + 1), rel=1e-5)


@SEVERAL
def test_labels_are_never_less_likely_than_before(several: bool) -> None:
    for seed in range(30):
        logits, labels = _drawn(6, several, 0.3, seed)
        temperature = fit_temperature(logits * 5, labels)
        after, before = (negative_log_likelihood(logits * 5, labels, t) for t in (temperature, 1.0))
        assert after < before or temperature == 1.0


@SEVERAL
def test_nothing_to_learn_from(several: bool) -> None:
    logits, labels = _drawn(5, several)
    assert fit_temperature(logits[:0], labels[:0]) == 1.0
    assert fit_temperature(np.zeros_like(logits), labels) == 1.0  # no temperature makes a difference
    logits[2, 1] = np.nan
    assert fit_temperature(logits, labels) == 1.0
    logits[2, 1] = np.inf
    assert fit_temperature(logits, labels) == 1.0


@SEVERAL
def test_logits_that_say_the_opposite_end_at_the_bound(several: bool) -> None:
    logits, labels = _drawn(500, several, 0.5)
    assert fit_temperature(-logits, labels) == pytest.approx(20.0)


def test_the_likelihood_is_scikit_learns_and_stays_finite() -> None:
    logits, labels = _drawn(60, False)
    assert negative_log_likelihood(logits, labels, 2.0) == pytest.approx(
        log_loss(labels, softmax(logits.astype(np.float64) / 2, axis=1), labels=range(5))
    )
    logits, labels = _drawn(60, True)
    wanted = np.mean([log_loss(labels[:, k], expit(logits[:, k].astype(float)), labels=[0, 1]) for k in range(5)])
    assert negative_log_likelihood(logits, labels) == pytest.approx(wanted, rel=1e-6)
    assert negative_log_likelihood(np.array([[0.0, 900.0]]), np.array([0]), 0.5) == pytest.approx(1800.0)


@SEVERAL
def test_probabilities_by_blocks_are_those_of_all(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _drawn(33, several)
    wanted = expit(logits.astype(float) / 1.7) if several else softmax(logits.astype(float) / 1.7, axis=1)
    whole = activated(logits, several, 1.7), negative_log_likelihood(logits, labels), fit_temperature(logits, labels)
    assert whole[0].dtype == np.float32
    np.testing.assert_allclose(whole[0], wanted, rtol=1e-6)
    monkeypatch.setattr(calibration, "_AT_ONCE", 20)
    np.testing.assert_array_equal(activated(logits, several, 1.7), whole[0])
    assert negative_log_likelihood(logits, labels) == pytest.approx(whole[1])
    assert fit_temperature(logits, labels) == pytest.approx(whole[2])


@pytest.mark.parametrize("temperature", [0.01, 1.0, 7.0, 100.0])
def test_no_temperature_changes_the_likeliest_class(temperature: float) -> None:
    """Not where two logits differ by the last bit, nor where one probability is rounded to 1 and others to 0."""
    rng = np.random.default_rng(0)
    close = np.nextafter(np.float32(3), np.float32(9))
    logits = np.concatenate([
        rng.normal(0, 1e-6, (200, 4)), rng.normal(0, 300, (200, 4)), [[3, close, 3, 0], [3, 3, close, close]],
    ]).astype(np.float32)  # fmt: skip
    found = activated(logits, False, temperature)
    np.testing.assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


def test_what_is_no_number_stays_none() -> None:
    logits = np.array([[0, np.nan], [1, 2], [np.inf, 0]], np.float32)
    found = activated(logits, False)
    assert np.isnan(found[[0, 2]]).any(axis=1).all() and np.isfinite(found[1]).all()
    spoiled = errors(found, np.array([0, 1, 0]))
    assert set(spoiled) == {"calibration_error", "calibration_error_equal_mass"}
    assert all(map(math.isnan, spoiled.values()))
    assert describe(found, found, np.array([0, 1, 0])) == {
        "reliability_uncalibrated": [], "reliability": [], "coverage": [],
    }  # fmt: skip


CLAIMS = Claims(np.array([0.95, 0.55, 0.85, 0.65]), np.array([True, False, True, False]))


def test_bins_by_hand() -> None:
    assert equal_mass(CLAIMS, 2) == [(pytest.approx(0.6), 0.0, 2), (pytest.approx(0.9), 1.0, 2)]
    assert calibration_error(equal_mass(CLAIMS, 2)) == pytest.approx((0.6 + 0.1) / 2)
    assert equal_width(CLAIMS, 10) == [
        (0.55, 0.0, 1), (0.65, 0.0, 1), (0.85, 1.0, 1), (0.95, 1.0, 1),
    ]  # fmt: skip
    assert calibration_error(equal_width(CLAIMS, 10)) == pytest.approx((0.55 + 0.65 + 0.15 + 0.05) / 4)
    assert calibration_error(equal_mass(CLAIMS, 1)) == pytest.approx(0.75 - 0.5)
    assert len(equal_mass(CLAIMS, 15)) == 4  # more bins than claims: one in each
    assert len(equal_mass(CLAIMS)) == 1  # ten are needed for a bin
    many = Claims(np.linspace(0, 1, 149), np.ones(149, bool))
    assert sorted(one.claims for one in equal_mass(many)) == [10] * 5 + [11] * 9


def test_bins_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(3000)
    claims = Claims(confidence, rng.random(3000) < confidence)
    for ours, strategy in ((equal_width(claims, 10), "uniform"), (equal_mass(claims, 10), "quantile")):
        accuracy, mean = calibration_curve(claims.right, confidence, n_bins=10, strategy=strategy)
        np.testing.assert_allclose([one.confidence for one in ours], mean, atol=2e-4)
        np.testing.assert_allclose([one.accuracy for one in ours], accuracy, atol=6e-3)
    assert {one.claims for one in equal_mass(claims, 10)} == {300}


def test_equal_confidences_are_in_one_bin_in_any_order() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.5, 0.75, 1.0], 60)
    right = rng.random(60) < 0.6
    wanted = equal_mass(Claims(confidence, right), 15)
    order = rng.permutation(60)
    again = equal_mass(Claims(confidence[order], right[order]), 15)
    assert [one.confidence for one in wanted] == [0.5, 0.75, 1.0] and again == wanted
    assert coverage(Claims(confidence, right)) == coverage(Claims(confidence[order], right[order]))


def test_coverage_by_hand() -> None:
    assert coverage(CLAIMS, 4) == [(0.25, 1.0), (0.5, 1.0), (0.75, pytest.approx(2 / 3)), (1.0, 0.5)]
    assert coverage(CLAIMS, 2) == [(0.5, 1.0), (1.0, 0.5)]
    assert coverage(CLAIMS, 20) == coverage(CLAIMS, 4)  # no more points than claims
    tied = Claims(np.array([0.9, 0.9, 0.4]), np.array([True, False, True]))
    assert coverage(tied, 3) == [(pytest.approx(1 / 3), 0.5), (pytest.approx(2 / 3), 0.5), (1.0, pytest.approx(2 / 3))]


def test_claims_of_several_labels_by_hand() -> None:
    probabilities, labels = np.array([[0.8, 0.3], [0.6, 0.1]]), np.array([[1, 0], [1, 1]], np.uint8)
    each = Claims.of(probabilities, labels)
    assert each.confidence.tolist() == [0.8, 0.3, 0.6, 0.1] and each.right.tolist() == [True, False, True, True]
    whole = Claims.of_answers(probabilities, labels, np.array([0.7, 0.2]))
    assert whole.confidence == pytest.approx([0.8 * 0.3, 0.4 * 0.9]) and whole.right.tolist() == [False, False]
    assert Claims.of_answers(probabilities, labels, np.array([0.5, 0.5])).right.tolist() == [True, False]


def test_a_fitted_temperature_heals_a_model_that_is_too_sure() -> None:
    logits, labels = _drawn(4000, False, 3.0)
    temperature = fit_temperature(logits[:2000], labels[:2000])
    before, after = (activated(logits[2000:], False, t) for t in (1.0, temperature))
    ece = [errors(p, labels[2000:])["calibration_error_equal_mass"] for p in (before, after)]
    assert ece[0] > 0.2 and ece[1] < 0.04
    curves = describe(before, after, labels[2000:])
    gaps = [max(abs(c - a) for c, a, _ in curves[name]) for name in ("reliability_uncalibrated", "reliability")]
    assert gaps[0] > 0.25 and gaps[1] < 0.12
    assert curves["coverage"][-1] == [1.0, pytest.approx((after.argmax(axis=1) == labels[2000:]).mean())]
    assert curves["coverage"][0][1] > curves["coverage"][-1][1] + 0.1


def test_the_picture_shows_both_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(monkeypatch, plots)
    bins = {"reliability_uncalibrated": [[0.5, 0.25, 10]], "reliability": [[0.4, 0.3, 10], [0.9, 1.0, 10]]}
    plots.calibration({"temperature": 1.5, **bins, "coverage": [[0.5, 1.0], [1.0, 0.75]]}, tmp_path / "a.png")
    reliability, coverage = ([line.get_xydata().tolist() for line in axis.get_lines()] for axis in made[0].axes[0])
    assert reliability[1:] == [[[0.5, 0.25]], [[0.4, 0.3], [0.9, 1.0]]] and coverage == [[[0.5, 1.0], [1.0, 0.75]]]
    texts = [text.get_text() for text in made[0].axes[0, 0].get_legend().get_texts()]
    assert texts == ["temperature 1", "temperature 1.5"]
    empty = {"temperature": 1.0, "reliability_uncalibrated": [], "reliability": [], "coverage": []}
    plots.calibration(empty, tmp_path / "b.png")  # of probabilities that are no numbers
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size
