"""Weights of the loss by class."""

from collections.abc import Callable

import numpy as np


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[K] weights in inverse proportion to the classes' frequencies, 1 on average over the examples."""
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0.0).astype(np.float32)


# (labels [N], K) → [K] weights, or None where every class weighs 1
CLASS_WEIGHTS: dict[str, Callable[[np.ndarray, int], np.ndarray | None]] = {
    "none": lambda labels, num_classes: None,
    "balanced": balanced_weights,
}
