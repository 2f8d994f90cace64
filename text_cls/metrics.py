"""What a classifier's predictions are worth."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training.figures import Cost


class Predictions(NamedTuple):
    """What figures are computed of.

    Attributes:
        probabilities: [N, K], rows sum to 1.
        labels: [N] class numbers.
        by_class: precision, recall, F1 [K] each; of a class that was never predicted, precision is 0.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    by_class: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """[N] the likeliest class of each row, −1 where the probabilities are no numbers."""
        return likeliest(self.probabilities)


def _loss(p: Predictions) -> Cost:
    """Mean negative log-likelihood."""
    likelihood = np.clip(p.probabilities[np.arange(len(p.labels)), p.labels].astype(np.float64), 1e-12, 1.0)
    return Cost(-np.log(likelihood).mean())


def likeliest(probabilities: np.ndarray) -> np.ndarray:
    """[N, K] → [N] the likeliest class of each row, −1 where the probabilities are no numbers."""
    return np.where(np.isfinite(probabilities).all(axis=1), probabilities.argmax(axis=1), -1)


# What a classifier is judged by; a ``Cost`` is better when it is smaller. Macro averages are over all K classes.
FIGURES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": lambda p: float(np.mean(p.predicted == p.labels)),
    "loss": _loss,
    "macro_precision": lambda p: float(p.by_class[0].mean()),
    "macro_recall": lambda p: float(p.by_class[1].mean()),
    "macro_f1": lambda p: float(p.by_class[2].mean()),
    "calibration_error": lambda p: Cost(calibration_error(p.probabilities, p.labels)),
}


def report(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Flat figures, and under ``per_class`` and ``confusion`` the detail.

    Args:
        probabilities: [N, K], rows sum to 1.
        labels: [N] class numbers.
        classes: K names.

    Returns:
        ``FIGURES``; ``per_class`` {name: precision, recall, f1, support}; ``confusion`` [K][K] counts, rows true,
        columns predicted.
    """
    every, predicted = np.arange(len(classes)), likeliest(probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    predictions = Predictions(probabilities, labels, np.stack([precision, recall, f1]))
    return {
        **{name: figure(predictions) for name, figure in FIGURES.items()},
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
    }


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over equal bins (Guo et al. 2017).

    No number if a probability is none.
    """
    if not np.isfinite(probabilities).all():
        return math.nan
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.bincount(place, confidence, bins) - np.bincount(place, right, bins)
    return float(np.abs(gaps).sum() / counts.sum())


def flat(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are single numbers."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def as_text(figures: dict[str, Any]) -> str:
    """A report to read: one line a class, then the averages."""
    width = max(12, *(len(name) for name in figures["per_class"]))
    lines = [f"{'':{width}s}  precision  recall      f1  support"]
    for name, row in figures["per_class"].items():
        lines.append(
            f"{name:{width}s}  {row['precision']:9.4f}  {row['recall']:.4f}  {row['f1']:.4f}  {row['support']:7d}"
        )
    lines.append(
        f"{'macro average':{width}s}  {figures['macro_precision']:9.4f}  {figures['macro_recall']:.4f}  "
        f"{figures['macro_f1']:.4f}"
    )
    lines.append(f"accuracy {figures['accuracy']:.4f}  loss {figures['loss']:.4f}")
    return "\n".join(lines)
