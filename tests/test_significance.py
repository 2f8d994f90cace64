"""Intervals and tests: against scipy and scikit-learn, by hand, and on resamples drawn one by one."""

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import binomtest, norm

from training import significance
from training.significance import (
    interval_of_accuracy,
    interval_of_difference,
    intervals_of_one_label,
    intervals_of_several_labels,
    mcnemar,
    resamples_for,
)


@pytest.mark.parametrize(("first", "second", "p"), [(1, 5, 14 / 64), (0, 3, 0.25), (4, 4, 1.0), (0, 0, 1.0)])
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)


def test_mcnemar_is_scipys_binomial_test() -> None:
    for first, second in ((12, 30), (0, 40), (700, 812), (3, 2)):
        assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-9)


def test_an_interval_of_accuracy_has_the_width_of_the_binomial() -> None:
    right = np.arange(4000) % 5 > 0
    low, high = interval_of_accuracy(right, seed=3, resamples=4000)
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 4000)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.08 * half)
    assert interval_of_accuracy(np.ones(10, bool)) == (1.0, 1.0) and interval_of_accuracy(np.zeros(9, bool)) == (0, 0)


def test_a_difference_is_of_the_same_rows() -> None:
    """Two classifiers that are right on nearly the same rows differ by little, however little that is of their own."""
    first = np.random.default_rng(0).random(3000) < 0.7
    second = first.copy()
    second[np.flatnonzero(first)[:60]] = False
    low, high = interval_of_difference(first, second, resamples=4000)
    half = norm.ppf(0.975) * np.sqrt(0.02 * 0.98 / 3000)
    assert (low, high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.1 * half)
    assert interval_of_difference(second, first, resamples=4000) == pytest.approx((-high, -low), abs=1e-12)


def _resamples(rows: int, count: int, seed: int) -> list[np.ndarray]:
    """Row numbers of each resample, as ``_resampled`` counts them."""
    drawn = np.concatenate(list(significance._resampled(np.arange(rows), rows, count, seed)))
    assert drawn.shape == (count, rows) and (drawn.sum(axis=1) == rows).all()
    return [np.repeat(np.arange(rows), counts) for counts in drawn]


def _middle(values: list[float]) -> list[float]:
    return np.percentile(values, [2.5, 97.5]).tolist()


def test_intervals_of_one_label_are_those_of_scikit_learn_on_every_resample() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 90)
    predicted = np.where(rng.random(90) < 0.6, labels, rng.integers(0, 6, 90))
    labels[labels == 5] = 4  # the last is predicted alone
    found = intervals_of_one_label(predicted, labels, 7, seed=1, resamples=200)
    drawn = _resamples(90, 200, 1)
    f1 = [sk.f1_score(labels[r], predicted[r], average="macro") for r in drawn]
    assert found["macro_f1"] == pytest.approx(_middle(f1))
    assert found["accuracy"] == pytest.approx(_middle([np.mean(labels[r] == predicted[r]) for r in drawn]))
    assert found == intervals_of_one_label(predicted, labels, 7, seed=1, resamples=200)
    assert found != intervals_of_one_label(predicted, labels, 7, seed=2, resamples=200)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_classifier_without_errors_has_no_interval(rows: int) -> None:
    """Though a resample lacks many of the classes, each of which has a few rows."""
    labels = np.repeat(np.arange(20), rows)
    assert intervals_of_one_label(labels, labels, 25) == {"accuracy": (1.0, 1.0), "macro_f1": (1.0, 1.0)}
    several = intervals_of_several_labels(np.eye(25)[labels], np.eye(25)[labels], np.full(25, 0.5))
    assert several == {"mean_average_precision": (1.0, 1.0), "macro_f1": (1.0, 1.0)}


def test_rows_without_an_answer_are_wrong() -> None:
    found = intervals_of_one_label(np.full(20, -1), np.arange(20) % 3, 3)
    assert found == {"accuracy": (0.0, 0.0), "macro_f1": (0.0, 0.0)}


def test_intervals_of_several_labels_are_those_of_scikit_learn_on_every_resample() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((70, 5)) < [0.3, 0.5, 0.05, 0.0, 0.9]).astype(np.uint8)
    labels[:2, 2] = 1, 0
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(1).astype(np.float32)  # many ties
    thresholds = np.array([0.5, 0.4, 0.6, 0.5, 0.3])
    found = intervals_of_several_labels(probabilities, labels, thresholds, seed=4, resamples=60)
    precision, f1 = [], []
    for rows in _resamples(70, 60, 4):
        y, p = labels[rows], probabilities[rows]
        precision.append(np.mean([sk.average_precision_score(y[:, k], p[:, k]) for k in range(5) if y[:, k].any()]))
        f1.append(sk.f1_score(y, p >= thresholds, average="macro", zero_division=np.nan))
    assert found["mean_average_precision"] == pytest.approx(_middle(precision))
    assert found["macro_f1"] == pytest.approx(_middle(f1))


def test_several_labels_without_any_or_without_numbers() -> None:
    none = intervals_of_several_labels(np.full((6, 2), 0.3), np.zeros((6, 2), np.uint8), np.full(2, 0.5))
    assert none == {"mean_average_precision": (0.0, 0.0), "macro_f1": (0.0, 0.0)}
    spoiled = np.full((6, 2), 0.3)
    spoiled[0, 0] = np.nan
    found = intervals_of_several_labels(spoiled, np.ones((6, 2), np.uint8), np.full(2, 0.5))
    assert found["mean_average_precision"] == (1.0, 1.0)  # of the class that has numbers, as in the report


def test_fewer_resamples_only_where_pairs_are_very_many() -> None:
    assert resamples_for(np.zeros(10**6)) == resamples_for(np.zeros((25_000, 90), np.uint8)) == 1000
    assert resamples_for(np.zeros((25_000, 500), np.uint8)) == 200
    assert resamples_for(np.zeros((500_000, 600), np.uint8)) == 100


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples are drawn some at a time; how many is a matter of memory."""
    labels = np.arange(50) % 4
    whole = intervals_of_one_label(labels[::-1], labels, 4, seed=5, resamples=40)
    monkeypatch.setattr(significance, "_AT_ONCE", 170)
    assert intervals_of_one_label(labels[::-1], labels, 4, seed=5, resamples=40) == whole
