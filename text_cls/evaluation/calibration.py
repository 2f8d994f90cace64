"""Calibration of a classifier's confidence: temperature, calibration errors, accuracy against coverage.

Shapes: ``N`` texts, ``K`` classes, ``M`` claims: for each text, that it has its likeliest class; with several labels a
text, for each pair of text and class, that the text has the class.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from files.documents import is_number

BINS = 15
_FEWEST = 10  # claims in a bin
SHARES = 20  # of the texts, in the curve of accuracy against coverage
_WIDEST = 20.0  # a temperature is between 1/20 and 20, because small ones magnify the rounding of logits
_AT_ONCE = 2**20  # numbers that are computed at a time, in float64


def activated(logits: np.ndarray, multi_label: bool, temperature: float = 1.0) -> np.ndarray:
    """[N, K] float32 probabilities of logits / temperature; softmax, or with ``multi_label`` the sigmoid of each.

    The likeliest class is always that of the logits, even if rounding makes two probabilities equal.
    """
    found = np.empty(logits.shape, np.float32)
    for rows in _blocks(logits):
        scaled = logits[rows].astype(np.float64) / temperature
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            found[rows] = expit(scaled) if multi_label else softmax(scaled, axis=1)
    return found if multi_label else _with_likeliest(found, logits.argmax(axis=1))


def _with_likeliest(probabilities: np.ndarray, likeliest: np.ndarray) -> np.ndarray:
    """The probabilities; if rounding made another class as likely, the last bit of the likeliest class is raised."""
    found = probabilities.argmax(axis=1)
    rows = np.flatnonzero(found != likeliest)
    probabilities[rows, likeliest[rows]] = np.nextafter(probabilities[rows, found[rows]], np.float32(2))
    return probabilities


def _blocks(logits: np.ndarray) -> Iterator[slice]:
    """Blocks of rows that are small enough for float64 copies."""
    step = max(1, _AT_ONCE // max(1, logits.shape[1]))
    return (slice(start, start + step) for start in range(0, len(logits), step))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """The mean of -log p(label) over texts, or over texts and classes for labels [N, K] of 0 and 1."""
    total = 0.0
    for rows in _blocks(logits):
        scaled, truth = logits[rows].astype(np.float64) / temperature, labels[rows]
        if labels.ndim == 2:
            total -= log_expit(np.where(truth > 0, scaled, -scaled)).sum()
        else:
            total -= log_softmax(scaled, axis=1)[np.arange(len(truth)), truth].sum()
    return float(total / labels.size)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that maximises the likelihood of labels under logits / T (Guo et al. 2017), for all classes.

    At the maximum, the mean logit under the model equals the mean logit of the labels. Their difference falls with T,
    and T is its zero. One row is added to the N rows; its label is uniform over the classes (Platt 1999). Without it T
    would be 0 if no row is wrong, and the first later mistake would be infinitely unlikely. If T does not increase the
    likelihood of the N rows compared with 1, the result is 1.

    Args:
        logits: [N, K] of rows that were not trained on.
        labels: [N] class numbers, or [N, K] of 0 and 1 with several labels a text.

    Returns:
        T; 1 without rows, or if a logit is not finite.
    """
    from scipy.optimize import brentq

    if not len(logits) or not np.isfinite(logits).all():
        return 1.0
    wanted = _mean_logit_of_labels(logits, labels)

    def gap(log_temperature: float) -> float:
        return _mean_logit_of_model(logits, labels.ndim == 2, math.exp(log_temperature)) - wanted

    ends = -math.log(_WIDEST), math.log(_WIDEST)
    outside = [end for end, sign in zip(ends, (1, -1), strict=True) if sign * gap(end) <= 0]
    temperature = math.exp(outside[0] if outside else brentq(gap, *ends, xtol=1e-9))
    better = negative_log_likelihood(logits, labels, temperature) < negative_log_likelihood(logits, labels)
    return temperature if better else 1.0


def is_temperature(value: Any) -> bool:
    """Whether a value from a file is a possible temperature."""
    return is_number(value) and value > 0


def _mean_logit_of_labels(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over texts, or texts and classes, and the added row."""
    if labels.ndim == 2:
        of_labels, of_any = logits.sum(where=labels > 0, dtype=np.float64), logits.sum(dtype=np.float64) / 2
    else:
        of_labels = logits[np.arange(len(labels)), labels].sum(dtype=np.float64)
        of_any = logits.mean(axis=1, dtype=np.float64).sum()
    return float((of_labels + of_any / len(labels)) / (1 + 1 / len(labels)) / labels.size)


def _mean_logit_of_model(logits: np.ndarray, multi_label: bool, temperature: float) -> float:
    total = 0.0
    for rows in _blocks(logits):
        values = logits[rows].astype(np.float64)
        scaled = values / temperature
        total += float(((expit(scaled) if multi_label else softmax(scaled, axis=1)) * values).sum())
    return total / (logits.size if multi_label else len(logits))


class Claims(NamedTuple):
    """The claims of a classifier, and whether they are right.

    Attributes:
        confidence: [M] the classifier's probability of each claim.
        right: [M] whether each claim is right.
    """

    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> "Claims":
        """From [N, K] probabilities: a text has its likeliest class; with labels [N, K], it has each class."""
        if labels.ndim == 2:
            return cls(probabilities.ravel(), labels.ravel() > 0)
        return cls(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)

    @classmethod
    def of_answers(cls, probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None) -> "Claims":
        """One claim for each text: with thresholds [K], that its labels are the predicted ones, with the product of the
        classes' probabilities as confidence."""
        if thresholds is None:
            return cls.of(probabilities, labels)
        predicted = probabilities >= thresholds
        each = np.where(predicted, probabilities, 1 - probabilities)
        return cls(np.prod(each, axis=1, dtype=np.float64), (predicted == (labels > 0)).all(axis=1))

    @property
    def are_numbers(self) -> bool:
        """Whether there are claims, and every confidence is finite."""
        return bool(len(self.confidence)) and bool(np.isfinite(self.confidence).all())


class Bin(NamedTuple):
    """Claims of similar confidence.

    Attributes:
        confidence, accuracy: means over the claims.
        claims: number of claims.
    """

    confidence: float
    accuracy: float
    claims: int


def equal_width(claims: Claims, bins: int = BINS) -> list[Bin]:
    """Claims by confidence in bins of equal width (Guo et al. 2017), without the empty ones."""
    return _binned(claims, np.minimum((claims.confidence * bins).astype(int), bins - 1), bins)


def equal_mass(claims: Claims, bins: int | None = None) -> list[Bin]:
    """Claims by confidence in bins of equal size (Nguyen & O'Connor 2015); equal confidences are in the same bin.

    ``bins`` is their number: by default 15, or fewer, so that each has ten claims: the gap of a smaller bin is chance.
    """
    bins = int(np.clip(len(claims.confidence) // _FEWEST, 1, BINS)) if bins is None else bins
    ordered = np.sort(claims.confidence)
    edges = ordered[np.arange(1, bins) * len(ordered) // bins]
    return _binned(claims, np.searchsorted(edges, claims.confidence, side="right"), bins)


def _binned(claims: Claims, place: np.ndarray, bins: int) -> list[Bin]:
    counts = np.bincount(place, minlength=bins)
    there = counts > 0
    sums = (np.bincount(place, column, bins)[there] / counts[there] for column in claims)
    return [Bin(*values) for values in zip(*(column.tolist() for column in (*sums, counts[there])), strict=True)]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy; NaN without bins."""
    count = sum(one.claims for one in bins)
    return sum(one.claims * abs(one.confidence - one.accuracy) for one in bins) / count if count else math.nan


def coverage(claims: Claims, shares: int = SHARES) -> list[tuple[float, float]]:
    """(share of the claims, the most confident first; their accuracy); claims of equal confidence count with their mean
    accuracy."""
    _, place, counts = np.unique(claims.confidence, return_inverse=True, return_counts=True)
    right = (np.bincount(place, claims.right) / counts)[place][np.argsort(-claims.confidence, kind="stable")]
    kept = np.unique(np.ceil(np.arange(1, shares + 1) / shares * len(right)).astype(int))
    accuracy = np.cumsum(right)[kept - 1] / kept
    return list(zip((kept / len(right)).tolist(), accuracy.tolist(), strict=True))


def errors(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Both calibration errors; NaN if a probability is not finite."""
    claims = Claims.of(probabilities, labels)
    kinds = {"calibration_error": equal_width, "calibration_error_equal_mass": equal_mass}
    return {name: calibration_error(bins(claims) if claims.are_numbers else []) for name, bins in kinds.items()}


def describe(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None = None
) -> dict[str, Any]:
    """The content of ``calibration.png``, for ``report.json``: bins of equal size, and accuracy against coverage.

    Args:
        before, after: [N, K] probabilities at temperature 1, and at the fitted one.
        labels: see ``fit_temperature``.
        thresholds: [K], with several labels a text.

    Returns:
        ``reliability_uncalibrated`` and ``reliability``: [confidence, accuracy, claims] of each bin; ``coverage``:
        [share, accuracy] of the most confident texts. The lists are empty if a probability is not finite.
    """
    curves = {"reliability_uncalibrated": Claims.of(before, labels), "reliability": Claims.of(after, labels)}
    found: dict[str, Any] = {
        name: [list(one) for one in equal_mass(claims)] if claims.are_numbers else [] for name, claims in curves.items()
    }
    answers = Claims.of_answers(after, labels, thresholds)
    return found | {"coverage": [list(point) for point in coverage(answers)] if answers.are_numbers else []}
