"""The influence of chance on a figure: bootstrap intervals over rows, and McNemar's test of two classifiers.

A resample is N rows drawn with replacement; an interval contains the middle 95 % of a figure's values over the
resamples (Efron 1979).

Shapes: ``N`` rows, ``K`` classes, ``C`` distinct pairs of label and answer, ``R`` resamples.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import bdtr

from training.repetitions import Interval

RESAMPLES, LEVEL = 1000, 0.95
_AT_ONCE = 2**22  # rows that are drawn at a time, over all resamples
_MOST = 25 * 10**8  # rows × classes × resamples of an average precision, which take some seconds
_FEWEST = 100


def _interval(values: np.ndarray) -> Interval:
    """The interval of [R] values, without those that are not finite."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(math.nan, math.nan)
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))


def _resampled(place: np.ndarray, kinds: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each kind is drawn, [some resamples, kinds], until all resamples are drawn.

    Args:
        place: [N] the kind of each row.
        kinds: number of kinds.
        resamples, seed: of the bootstrap.
    """
    rng, rows = np.random.default_rng(seed), len(place)
    place, step = place.astype(np.int64), max(1, _AT_ONCE // max(1, rows))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = place[rng.integers(0, rows, (count, rows), dtype=np.int32)]
        drawn += np.arange(count)[:, None] * kinds
        yield np.bincount(drawn.ravel(), minlength=count * kinds).reshape(count, kinds)


def intervals_of_one_label(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Intervals of accuracy and macro F1.

    Args:
        predicted: [N] class numbers, −1 for no answer.
        labels: [N] class numbers.
        num_classes: K.
        seed, resamples: of the bootstrap.
    """
    cells, place = np.unique(labels.astype(np.int64) * (num_classes + 1) + predicted + 1, return_inverse=True)
    true, guess = np.divmod(cells, num_classes + 1)
    guess -= 1
    sums = [_indicator(of, len(cells), num_classes) for of in _groups(true, guess)]
    accuracy, macro_f1 = [], []
    for counts in _resampled(place, len(cells), resamples, seed):
        hits, of_guess, of_true = (matrix @ counts.T for matrix in sums)  # each [K, some resamples]
        accuracy.append(hits.sum(axis=0) / len(labels))
        macro_f1.append(_macro_f1(hits, of_guess, of_true))
    return {"accuracy": _interval(np.concatenate(accuracy)), "macro_f1": _interval(np.concatenate(macro_f1))}


class _Group(NamedTuple):
    """Cells, each with the class that it counts for."""

    cells: np.ndarray
    classes: np.ndarray


def _groups(true: np.ndarray, guess: np.ndarray) -> tuple[_Group, _Group, _Group]:
    """The cells that count as hits, as answers and as labels of a class."""
    hits, answered = np.flatnonzero(true == guess), np.flatnonzero(guess >= 0)
    return _Group(hits, true[hits]), _Group(answered, guess[answered]), _Group(np.arange(len(true)), true)


def _indicator(group: _Group, num_cells: int, num_classes: int) -> csr_matrix:
    """[K, C], 1 if the cell counts for the class."""
    ones = np.ones(len(group.cells), np.int64)
    return csr_matrix((ones, (group.classes, group.cells)), (num_classes, num_cells))


def _macro_f1(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> np.ndarray:
    """[K, R] counts → [R], the mean F1 of the classes that are drawn, as labels or as answers; 0 if none is."""
    below = predicted + support
    f1 = np.where(below > 0, 2 * hits / np.maximum(below, 1), 0.0)
    return f1.sum(axis=0) / np.maximum((below > 0).sum(axis=0), 1)


def intervals_of_several_labels(
    probabilities: np.ndarray,
    labels: np.ndarray,
    thresholds: np.ndarray,
    seed: int = 0,
    resamples: int | None = None,
) -> dict[str, Interval]:
    """Intervals of mean average precision and macro F1.

    Args:
        probabilities: [N, K].
        labels: [N, K] of 0 and 1.
        thresholds: [K].
        seed, resamples: of the bootstrap; by default ``resamples_for(labels)`` resamples.
    """
    truth, predicted, rows = labels > 0, probabilities >= thresholds, len(labels)
    kind = np.int16 if rows < 2**15 else np.int32  # of sums over a resample
    matrices = [csr_matrix(of.T, dtype=kind) for of in (truth & predicted, predicted, truth)]
    known = np.flatnonzero(truth.any(axis=0) & np.isfinite(probabilities).all(axis=0))
    mean_precision, macro_f1 = [], []
    for counts in _resampled(np.arange(rows), rows, resamples or resamples_for(labels), seed):
        weights = np.ascontiguousarray(counts.T, kind)  # [N, some resamples]
        each = [_average_precision(probabilities[:, k], truth[:, k], weights) for k in known]
        mean_precision.append(_mean(each, weights.shape[1]))
        macro_f1.append(_macro_f1(*(matrix @ weights for matrix in matrices)))
    return {
        "mean_average_precision": _interval(np.concatenate(mean_precision)),
        "macro_f1": _interval(np.concatenate(macro_f1)),
    }


def resamples_for(labels: np.ndarray) -> int:
    """The number of resamples: 1,000, or fewer for labels [N, K] with very many pairs of row and class, for speed."""
    return RESAMPLES if labels.ndim == 1 else int(np.clip(_MOST // max(1, labels.size), _FEWEST, RESAMPLES))


def _average_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[R] the average precision of one class (see ``several_labels``); NaN if no row of the class is drawn.

    The ranking is divided into stretches. Each ends with rows that have the class and all rows with the same score.

    Args:
        scores: [N].
        truth: [N] whether the row has the class; at least one row has it.
        weights: [N, R] how often each row is drawn.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of equal scores
    found = np.cumsum(truth[order])[last]
    more = np.diff(found, prepend=0) > 0
    predicted = np.cumsum(_sums(order, last[more] + 1, weights), axis=0)
    gained = _sums(order[truth[order]], found[more], weights)
    hits = np.cumsum(gained, axis=0)
    total = (gained * (hits / np.maximum(predicted, 1))).sum(axis=0)
    return np.where(hits[-1] > 0, total / np.maximum(hits[-1], 1), math.nan)


def _sums(rows: np.ndarray, ends: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[stretches, R] sums of the weights of ``rows`` over each stretch; ``ends`` are the ends of the stretches."""
    ones = np.ones(ends[-1], weights.dtype)
    return csr_matrix((ones, rows[: ends[-1]], np.append(0, ends)), (len(ends), len(weights))) @ weights


def _mean(rows: list[np.ndarray], count: int) -> np.ndarray:
    """[R] the mean of the finite values; 0 if there is none."""
    values = np.array(rows).reshape(-1, count)
    there = np.isfinite(values)
    return np.where(there, values, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test. Under the null hypothesis, of the rows that exactly one of two
    classifiers answers correctly, the first answers each with probability 1/2.

    Args:
        only_first, only_second: numbers of rows that only the first, and only the second, answers correctly.
    """
    disagreements = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), disagreements, 0.5)))


def interval_of_accuracy(right: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The interval of an accuracy, from [N] rows answered correctly or not."""
    return interval_of_difference(right, np.zeros(len(right), bool), seed, resamples)


def interval_of_difference(
    first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The interval of the first accuracy minus the second on the same rows, each [N] correct or not."""
    gain = first.astype(int) - second.astype(int) + 1  # 0, 1 or 2
    drawn = np.concatenate(list(_resampled(gain, 3, resamples, seed)))
    return _interval((drawn[:, 2] - drawn[:, 0]) / len(first))
