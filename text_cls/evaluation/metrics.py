"""Figures of a classifier for one label a text; ``several_labels.py`` has those for several.

``N`` texts, ``K`` classes; there is no [K, K] array for large K.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from text_cls.evaluation import calibration
from training.figures import Cost

MOST_DENSE = 200  # with more classes, a confusion matrix is written as a list of its cells


class Predictions(NamedTuple):
    """The arguments of figures.

    Attributes:
        probabilities: [N, K], rows sum to 1.
        labels: [N] class numbers.
        macro: means of the classes' precision, recall and F1; see ``Counts.macro``.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    macro: tuple[float, float, float]

    @property
    def predicted(self) -> np.ndarray:
        """[N] the likeliest class of each row; −1 if a probability is not finite."""
        return likeliest(self.probabilities)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> Cost:
    """Mean over texts of -log p(label)."""
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1.0)
    return Cost(0.0 - np.log(likelihood).mean())


def likeliest(probabilities: np.ndarray) -> np.ndarray:
    """[N, K] → [N] the likeliest class of each row; −1 if a probability is not finite."""
    return np.where(np.isfinite(probabilities).all(axis=1), probabilities.argmax(axis=1), -1)


# The figures by name; a ``Cost`` is better if it is smaller.
FIGURES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": lambda p: float(np.mean(p.predicted == p.labels)),
    "loss": lambda p: negative_log_likelihood(p.probabilities, p.labels),
    "macro_precision": lambda p: p.macro[0],
    "macro_recall": lambda p: p.macro[1],
    "macro_f1": lambda p: p.macro[2],
    "calibration_error": lambda p: Cost(calibration.errors(p.probabilities, p.labels)["calibration_error"]),
}


def report(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The figures, with the details in ``per_class`` and ``confusion``.

    Args:
        probabilities: [N, K], rows sum to 1.
        labels: [N] class numbers.
        classes: K names.

    Returns:
        ``FIGURES``; ``per_class`` {name: precision, recall, f1, support}; ``confusion``: with up to ``MOST_DENSE``
        classes the matrix [K][K] of counts, rows true, columns predicted; with more classes the cells that are not 0,
        each as [true, predicted, count], with class numbers in the order of ``per_class``.
    """
    predicted = likeliest(probabilities)
    answered = predicted >= 0
    hits = np.bincount(labels[labels == predicted], minlength=len(classes))
    counts = Counts(
        hits,
        np.bincount(predicted[answered], minlength=len(classes)),
        np.bincount(labels, minlength=len(classes)),
    )
    predictions = Predictions(probabilities, labels, counts.macro())
    return {
        **{name: figure(predictions) for name, figure in FIGURES.items()},
        "per_class": counts.by_class(classes),
        "confusion": _confusion(labels[answered], predicted[answered], len(classes)),
    }


class Counts(NamedTuple):
    """Counts of one class, or [K] of every class."""

    hits: np.ndarray  # texts that have the class and are predicted to have it
    predicted: np.ndarray  # texts that are predicted to have it
    support: np.ndarray  # texts that have it

    def scores(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Precision, recall and F1; 0 if the denominator is 0."""
        precision, recall = _ratio(self.hits, self.predicted), _ratio(self.hits, self.support)
        return precision, recall, _ratio(2 * self.hits, self.predicted + self.support)

    def macro(self) -> tuple[float, float, float]:
        """Means of precision, recall and F1 over the classes that a text has or is predicted to have; 0 if none is.

        These are scikit-learn's classes for one label: a class that is in no text and no answer says nothing of the
        answers.
        """
        there = self.predicted + self.support > 0
        precision, recall, f1 = (float(score[there].mean()) if there.any() else 0.0 for score in self.scores())
        return precision, recall, f1

    def by_class(self, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """{name: precision, recall, f1, support}."""
        names = ("precision", "recall", "f1", "support")
        rows = zip(*(column.tolist() for column in (*self.scores(), self.support)), strict=True)
        return {name: dict(zip(names, row, strict=True)) for name, row in zip(classes, rows, strict=True)}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.maximum(below, 1), 0.0)


class ConfusionCells(NamedTuple):
    """The cells of a confusion matrix that are not 0."""

    true: np.ndarray
    predicted: np.ndarray
    texts: np.ndarray  # number of texts


def _confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[list[int]]:
    """Counts in the form of ``report``."""
    cells, count = np.unique(labels.astype(np.int64) * num_classes + predicted, return_counts=True)
    true, guess = np.divmod(cells, num_classes)
    if num_classes > MOST_DENSE:
        return np.stack([true, guess, count], axis=1).tolist()
    matrix = np.zeros((num_classes, num_classes), np.int64)
    matrix[true, guess] = count
    return matrix.tolist()


def confusion_cells(counts: Sequence[Sequence[int]], num_classes: int) -> ConfusionCells:
    """``confusion`` of a report, in either form → the cells that are not 0."""
    if num_classes > MOST_DENSE:
        return ConfusionCells(*np.array(counts, np.int64).reshape(-1, 3).T)
    matrix = np.array(counts, np.int64)
    true, predicted = np.nonzero(matrix)
    return ConfusionCells(true, predicted, matrix[true, predicted])


def flat(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are single numbers."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}
