"""Weights of the loss by class."""

from collections.abc import Callable

import numpy as np


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[K] weights of labels [N], or of labels [N, K] of 0 and 1 where a text has several.

    One label: N / (K · n_k), in inverse proportion to the classes' frequencies, 1 on average over the examples.
    Several: (N − n_k) / n_k, negatives by positives, the factor of a class's positive term (``pos_weight`` of others);
    1 for a class that all texts have, or none.
    """
    if labels.ndim == 2:
        positives = (labels > 0).sum(axis=0)
        negatives = len(labels) - positives
        both = (positives > 0) & (negatives > 0)
        return np.where(both, negatives / np.maximum(positives, 1), 1.0).astype(np.float32)
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0.0).astype(np.float32)


# (labels [N] or [N, K], K) → [K] weights, or None where every class weighs 1
CLASS_WEIGHTS: dict[str, Callable[[np.ndarray, int], np.ndarray | None]] = {
    "none": lambda labels, num_classes: None,
    "balanced": balanced_weights,
}
