"""What a classifier's predictions are worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


def report(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Flat figures, and under ``per_class`` and ``confusion`` the detail.

    Args:
        probabilities: [N, K], rows sum to 1.
        labels: [N] class numbers.
        classes: K names.

    Returns:
        ``accuracy``, ``loss`` (mean negative log-likelihood), ``macro_precision``, ``macro_recall``, ``macro_f1``
        (over all K classes; one that was never predicted has precision 0), ``calibration_error``; ``per_class``
        {name: precision, recall, f1, support}; ``confusion`` [K][K] counts, rows true, columns predicted.
    """
    every = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-12, 1.0)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "loss": float(-np.log(likelihood).mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "calibration_error": calibration_error(probabilities, labels),
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
    """Expected calibration error: the mean gap between confidence and accuracy over equal bins (Guo et al. 2017)."""
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
