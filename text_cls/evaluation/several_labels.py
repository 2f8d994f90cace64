"""Figures of a classifier for several labels a text, and the thresholds of its classes.

``N`` texts, ``K`` classes. A class is predicted if its probability is at least its threshold.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from text_cls.evaluation.metrics import Counts
from training.figures import Cost

UNFITTED = 0.5  # the threshold of every class before ``fit_thresholds``


class Predictions(NamedTuple):
    """The arguments of figures.

    Attributes:
        probabilities: [N, K], each between 0 and 1.
        labels: [N, K] of 0 and 1.
        predicted: [N, K] whether the probability reaches the threshold.
        counts: [K] of each class.
        average_precision: [K], NaN for a class without texts.
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


def _mean_average_precision(p: Predictions) -> float:
    """The mean over the classes with at least one text; 0 if there is none, as in scikit-learn."""
    present = p.average_precision[p.counts.support > 0]
    return float(present.mean()) if len(present) else 0.0


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> Cost:
    """Mean over texts and classes of -log p(label): binary cross-entropy."""
    likelihood = np.where(labels > 0, probabilities, 1 - probabilities)
    return Cost(0.0 - np.log(np.clip(likelihood, 1e-12, 1.0)).mean(dtype=np.float64))


# The figures by name; a ``Cost`` is better if it is smaller. During training, thresholds are .5. In the report they are
# fitted on validation, so the F1 on validation is a little too good.
FIGURES: dict[str, Callable[[Predictions], float]] = {
    "mean_average_precision": _mean_average_precision,
    "loss": lambda p: negative_log_likelihood(p.probabilities, p.labels),
    "subset_accuracy": lambda p: float((p.predicted == (p.labels > 0)).all(axis=1).mean()),
    "hamming_loss": lambda p: Cost((p.predicted != (p.labels > 0)).mean()),
    "micro_precision": lambda p: p.micro()[0],
    "micro_recall": lambda p: p.micro()[1],
    "micro_f1": lambda p: p.micro()[2],
    "macro_precision": lambda p: p.counts.macro()[0],
    "macro_recall": lambda p: p.counts.macro()[1],
    "macro_f1": lambda p: p.counts.macro()[2],
}


def report(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], thresholds: np.ndarray | None = None
) -> dict[str, Any]:
    """The figures, with the details in ``per_class``.

    Args:
        probabilities: [N, K], each between 0 and 1.
        labels: [N, K] of 0 and 1.
        classes: K names.
        thresholds: [K], by default .5.

    Returns:
        ``FIGURES``; ``per_class`` {name: precision, recall, f1, support, average_precision, threshold}; the average
        precision of a class without texts is None.
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
    """The counts at every threshold: one entry for each distinct score, in descending order."""

    scores: np.ndarray  # float64
    predicted: np.ndarray  # texts at this score or above
    hits: np.ndarray  # those of them that have the class


def _curve(scores: np.ndarray, truth: np.ndarray) -> _Curve:
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal scores
    return _Curve(ordered[last], last + 1, np.cumsum(truth[order])[last])


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """The precision at each distinct score, weighted by the increase of recall, as scikit-learn's
    ``average_precision_score``.

    Args:
        scores: [N] of one class.
        truth: [N] bool, whether the text has it.

    Returns:
        The average precision; NaN if no text has the class, or a score is not finite.
    """
    if not truth.any() or not np.isfinite(scores).all():
        return math.nan
    curve = _curve(scores, truth)
    return float(np.sum(np.diff(curve.hits, prepend=0) / truth.sum() * (curve.hits / curve.predicted)))


def fit_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[K] thresholds with the best F1 of each class; .5 for a class without texts.

    A threshold is .5, or half-way between neighbouring probabilities; of equally good ones it is the nearest to .5. It
    is also .5 if the best F1 would predict the class for every text, but at most half of the texts have it.

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
    low = np.append(curve.scores[1:], 0.0)  # all thresholds above ``low``, up to the score, predict the same texts
    within = (low < UNFITTED) & (curve.scores >= UNFITTED)
    candidates = np.where(within, UNFITTED, (curve.scores + low) / 2)[f1 == f1.max()]
    best = float(candidates[np.argmin(np.abs(candidates - UNFITTED))])
    gives_all = best <= curve.scores[-1]
    return UNFITTED if gives_all and truth.mean() <= 0.5 else best  # a rare class that every text gets was not learned
