"""What a classifier's predictions are worth where a text has any number of labels, and the thresholds that decide.

``N`` texts, ``K`` classes. A class is predicted where its probability is at its threshold or above.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from text_cls.metrics import Counts
from training.figures import Cost

UNFITTED = 0.5  # the threshold of every class before ``fit_thresholds``


class Predictions(NamedTuple):
    """What figures are computed of.

    Attributes:
        probabilities: [N, K], each between 0 and 1.
        labels: [N, K] of 0 and 1.
        predicted: [N, K] whether the probability reaches the threshold.
        counts: [K] of each class.
        average_precision: [K], no number for a class that no text has.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    counts: Counts
    average_precision: np.ndarray

    def micro(self) -> tuple[float, float, float]:
        """Precision, recall and F1 over all pairs of text and class."""
        precision, recall, f1 = Counts(*(np.sum(count) for count in self.counts)).scores()
        return float(precision), float(recall), float(f1)

    def macro(self) -> tuple[float, float, float]:
        """Means over all K classes of each class's precision, recall and F1."""
        precision, recall, f1 = (float(score.mean()) for score in self.counts.scores())
        return precision, recall, f1


def _mean_average_precision(p: Predictions) -> float:
    """Over the classes that at least one text has; 0 if there is none, as scikit-learn's."""
    present = p.average_precision[p.counts.support > 0]
    return float(present.mean()) if len(present) else 0.0


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> Cost:
    """Mean over texts and classes of -log p(label): binary cross-entropy."""
    likelihood = np.where(labels > 0, probabilities, 1 - probabilities)
    return Cost(0.0 - np.log(np.clip(likelihood, 1e-12, 1.0)).mean(dtype=np.float64))


# What a classifier of several labels is judged by; a ``Cost`` is better when it is smaller. During training thresholds
# are .5; in the report they are those fitted on validation, so that validation's own F1 is a little too good there.
FIGURES: dict[str, Callable[[Predictions], float]] = {
    "mean_average_precision": _mean_average_precision,
    "loss": lambda p: negative_log_likelihood(p.probabilities, p.labels),
    "subset_accuracy": lambda p: float((p.predicted == (p.labels > 0)).all(axis=1).mean()),
    "hamming_loss": lambda p: Cost((p.predicted != (p.labels > 0)).mean()),
    "micro_precision": lambda p: p.micro()[0],
    "micro_recall": lambda p: p.micro()[1],
    "micro_f1": lambda p: p.micro()[2],
    "macro_precision": lambda p: p.macro()[0],
    "macro_recall": lambda p: p.macro()[1],
    "macro_f1": lambda p: p.macro()[2],
}


def report(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], thresholds: np.ndarray | None = None
) -> dict[str, Any]:
    """Flat figures, and under ``per_class`` the detail.

    Args:
        probabilities: [N, K], each between 0 and 1.
        labels: [N, K] of 0 and 1.
        classes: K names.
        thresholds: [K], .5 if not given.

    Returns:
        ``FIGURES``; ``per_class`` {name: precision, recall, f1, support, average_precision, threshold}, where a class
        that no text has has no average precision.
    """
    thresholds = np.full(len(classes), UNFITTED) if thresholds is None else thresholds
    truth, predicted = labels > 0, probabilities >= thresholds
    counts = Counts((truth & predicted).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0))
    precisions = np.array([average_precision(probabilities[:, k], truth[:, k]) for k in range(len(classes))])
    predictions = Predictions(probabilities, labels, predicted, counts, precisions)
    per_class = counts.by_class(classes)
    for row, precision, threshold in zip(per_class.values(), precisions.tolist(), thresholds.tolist(), strict=True):
        row |= {"average_precision": None if math.isnan(precision) else precision, "threshold": threshold}
    return {**{name: figure(predictions) for name, figure in FIGURES.items()}, "per_class": per_class}


class _Curve(NamedTuple):
    """What every threshold gives: one entry for each distinct score, from the highest down."""

    scores: np.ndarray  # float64
    predicted: np.ndarray  # texts at this score or above
    hits: np.ndarray  # those of them that have the class


def _curve(scores: np.ndarray, truth: np.ndarray) -> _Curve:
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal scores
    return _Curve(ordered[last], last + 1, np.cumsum(truth[order])[last])


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of the precision over the recall that each score adds: scikit-learn's ``average_precision_score``.

    Args:
        scores: [N] of one class.
        truth: [N] bool, whether the text has it.

    Returns:
        No number if no text has the class, or a score is none.
    """
    if not truth.any() or not np.isfinite(scores).all():
        return math.nan
    curve = _curve(scores, truth)
    return float(np.sum(np.diff(curve.hits, prepend=0) / truth.sum() * (curve.hits / curve.predicted)))


def fit_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[K] thresholds, each the one of the best F1 of its class; .5 for a class that no text has.

    Thresholds lie half-way between neighbouring probabilities, or at .5; of equally good ones the nearest to .5 is
    taken. Where nothing is better than to give every text a class that at most half of them have, it is .5 too.

    Args:
        probabilities: [N, K] of the validation split.
        labels: [N, K] of 0 and 1.
    """
    return np.array([_best_threshold(p, y > 0) for p, y in zip(probabilities.T, labels.T, strict=True)], np.float64)


def _best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    if not truth.any() or not np.isfinite(scores).all():
        return UNFITTED
    curve = _curve(scores, truth)
    f1 = 2 * curve.hits / (curve.predicted + truth.sum())
    low = np.append(curve.scores[1:], 0.0)  # every threshold above it, up to the score itself, does the same
    within = (low < UNFITTED) & (curve.scores >= UNFITTED)
    candidates = np.where(within, UNFITTED, (curve.scores + low) / 2)[f1 == f1.max()]
    best = float(candidates[np.argmin(np.abs(candidates - UNFITTED))])
    gives_all = best <= curve.scores[-1]
    return UNFITTED if gives_all and truth.mean() <= 0.5 else best  # a rare class that all texts get is not learned
