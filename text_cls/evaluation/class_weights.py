"""Weights of the loss, and offsets of its logits, by class."""

from collections.abc import Callable

import numpy as np

from text_cls.config import ObjectiveConfig


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[K] weights for labels [N], or for labels [N, K] of 0 and 1 with several labels a text.

    One label: N / (K · n_k), in inverse proportion to the classes' frequencies; the mean over the examples is 1.
    Several: (N − n_k) / n_k, negatives by positives, the factor of a class's positive term (``pos_weight`` in other
    libraries); 1 for a class of all texts or of none.
    """
    if labels.ndim == 2:
        positives = (labels > 0).sum(axis=0)
        negatives = len(labels) - positives
        both = (positives > 0) & (negatives > 0)
        return np.where(both, negatives / np.maximum(positives, 1), 1.0).astype(np.float32)
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0.0).astype(np.float32)


def logit_adjustment(labels: np.ndarray, num_classes: int, tau: float) -> np.ndarray | None:
    """[K] offsets of the logits in the loss: τ · log π_k (Menon et al. 2021, Eq. 10); None for τ = 0.

    The network's own logits then do not depend on the classes' shares: with τ = 1, the largest logit gives the smallest
    balanced error, which is the mean over the classes of their share of wrong rows.

    Args:
        labels: [N] class numbers of the training rows; π_k is the share of class k. A class without rows counts as one
            row, because log 0 is infinite.
        num_classes: K.
        tau: τ.
    """
    if not tau:
        return None
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return (tau * np.log(counts / len(labels))).astype(np.float32)


def margin_weights(config: ObjectiveConfig, labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """[K] weights of the errors of each class, for a model with margins; None if all are 1.

    Such a model has no logits to adjust: with ``logit_adjustment`` τ, the weights are the balanced weights to the power
    τ. A class without training rows has weight 1: it may have validation rows, on which the model is fitted too.
    """
    if config.logit_adjustment and labels.ndim == 1:
        weights = balanced_weights(labels, num_classes) ** np.float32(config.logit_adjustment)
    else:
        found = CLASS_WEIGHTS[config.class_weights](labels, num_classes)
        if found is None:
            return None
        weights = found
    return np.where(weights > 0, weights, np.float32(1))


# (labels [N] or [N, K], K) → [K] weights, or None if all are 1
CLASS_WEIGHTS: dict[str, Callable[[np.ndarray, int], np.ndarray | None]] = {
    "none": lambda labels, num_classes: None,
    "balanced": balanced_weights,
}
