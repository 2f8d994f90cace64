"""What chance may have made of a figure: bootstrap intervals over rows, and McNemar's test of two classifiers.

Shapes: ``N`` rows, ``K`` classes, ``C`` distinct pairs of label and answer, ``R`` resamples. A resample is N rows drawn
with replacement; an interval holds the middle 95 % of a figure's values over the resamples (Efron 1979).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import bdtr

from training.repetitions import Interval

RESAMPLES, LEVEL = 1000, 0.95
_AT_ONCE = 2**22  # rows that are drawn at a time, over resamples
_MOST = 25 * 10**8  # rows × classes × resamples of an average precision: some seconds; beyond it, fewer resamples
_FEWEST = 100


def _interval(values: np.ndarray) -> Interval:
    """The middle of [R] values; those that are no numbers do not count."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(math.nan, math.nan)
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))


def _resampled(place: np.ndarray, kinds: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each kind is drawn, [some resamples, kinds], until there are all.

    Args:
        place: [N] the kind of each row.
        kinds: how many there are.
        resamples, seed: how many are drawn, and from what.
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
    """Of accuracy and macro F1.

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
    """Which cells count for which classes."""

    cells: np.ndarray
    classes: np.ndarray


def _groups(true: np.ndarray, guess: np.ndarray) -> tuple[_Group, _Group, _Group]:
    """Cells as hits, as answers, and as labels of their classes."""
    hits, answered = np.flatnonzero(true == guess), np.flatnonzero(guess >= 0)
    return _Group(hits, true[hits]), _Group(answered, guess[answered]), _Group(np.arange(len(true)), true)


def _indicator(group: _Group, num_cells: int, num_classes: int) -> csr_matrix:
    """[K, C], 1 where the cell counts for the class."""
    ones = np.ones(len(group.cells), np.int64)
    return csr_matrix((ones, (group.classes, group.cells)), (num_classes, num_cells))


def _macro_f1(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> np.ndarray:
    """[K, R] counts → [R], the mean over all classes."""
    below = predicted + support
    return np.where(below > 0, 2 * hits / np.maximum(below, 1), 0.0).mean(axis=0)


def intervals_of_several_labels(
    probabilities: np.ndarray,
    labels: np.ndarray,
    thresholds: np.ndarray,
    seed: int = 0,
    resamples: int | None = None,
) -> dict[str, Interval]:
    """Of mean average precision and macro F1.

    Args:
        probabilities: [N, K].
        labels: [N, K] of 0 and 1.
        thresholds: [K].
        seed: of the bootstrap.
        resamples: of it; ``resamples_for`` if not given.
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
    """1,000; with several labels a text and very many pairs of text and class fewer, so that it takes seconds."""
    return RESAMPLES if labels.ndim == 1 else int(np.clip(_MOST // max(1, labels.size), _FEWEST, RESAMPLES))


def _average_precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of one class in every resample, no number where none of its rows is drawn; see ``several_labels``.

    The ranking is cut into stretches: each ends with rows that have the class, and with all rows of their score.

    Args:
        scores: [N].
        truth: [N] whether the row has the class; one has.
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
    """[stretches, R] sums of the weights of some rows; ``ends`` are the places where stretches of them end."""
    ones = np.ones(ends[-1], weights.dtype)
    return csr_matrix((ones, rows[: ends[-1]], np.append(0, ends)), (len(ends), len(weights))) @ weights


def _mean(rows: list[np.ndarray], count: int) -> np.ndarray:
    """[R] the mean of those values that are numbers; 0 if there is none."""
    values = np.array(rows).reshape(-1, count)
    there = np.isfinite(values)
    return np.where(there, values, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: rows that one of two classifiers alone gets right are a coin's throws.

    Args:
        only_first, only_second: rows that the first alone, and the second alone, gets right.
    """
    disagreements = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), disagreements, 0.5)))


def interval_of_accuracy(right: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Of [N] rows that are right or not."""
    return interval_of_difference(right, np.zeros(len(right), bool), seed, resamples)


def interval_of_difference(
    first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Of the first's accuracy less the second's on the same rows, each [N] right or not."""
    gain = first.astype(int) - second.astype(int) + 1  # 0, 1 or 2
    drawn = np.concatenate(list(_resampled(gain, 3, resamples, seed)))
    return _interval((drawn[:, 2] - drawn[:, 0]) / len(first))
