"""The weighted sum of several kinds of logits with the highest likelihood of the labels: a convex problem.

Shapes: ``N`` rows, ``K`` classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

_MOST_NUMBERS = 2**24  # rows × classes in the fit of factors
_LEAST_OF_NETWORK = 0.1  # lower bound of the factor of the network's logits


class Fusion(NamedTuple):
    """The sum of several kinds of logits.

    Attributes:
        logits: [N, K] (network + Σ weight · scores) / temperature.
        weights: of the scores; 0 for scores that do not help.
        temperature: of the sum, fitted with the weights.
    """

    logits: np.ndarray
    weights: tuple[float, ...]
    temperature: float = 1.0


def fuse(network: np.ndarray, scores: Sequence[np.ndarray], labels: np.ndarray) -> Fusion:
    """The sum a · network + Σ s · scores with the least cross-entropy, which is convex in the factors a and s ≥ 0.

    One row is added to the N rows; its label is uniform over the classes, as in ``fit_temperature``. Without it the
    factors would have no bound if no row is wrong.

    Args:
        network: [N, K] logits of rows that the network was not trained on.
        scores: [N, K] each, of linear models that were not fitted on these rows either.
        labels: [N] class numbers, or [N, K] of 0 and 1 with several labels a text.
    """
    from scipy.optimize import minimize

    if not len(labels) or not np.isfinite(network).all():
        return Fusion(network, (0.0,) * len(scores))
    fitted = np.linspace(0, len(labels) - 1, min(len(labels), max(1, _MOST_NUMBERS // network.shape[1]))).astype(int)
    every = [x[fitted].astype(np.float64) for x in (network, *scores)]
    target = _smoothed(labels[fitted], network.shape[1])

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _cross_entropy(weighted_sum(factors, every), target, labels.ndim == 2)
        return value, np.array([(gradient * x).sum() for x in every])

    bounds = [(_LEAST_OF_NETWORK, None)] + [(0.0, None)] * len(scores)
    factors = minimize(loss, np.ones(len(every)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = tuple(float(np.float32(s / factors[0])) for s in factors[1:])
    logits = weighted_sum(factors.astype(np.float32), (network, *scores)).astype(np.float32)
    return Fusion(logits, weights, float(1 / factors[0]))


def _smoothed(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[N, K] the labels, mixed with a share of 1 / (N + 1) of the uniform distribution."""
    several = labels.ndim == 2
    share = 1 / (len(labels) + 1)
    target = np.full((len(labels), num_classes), share * (0.5 if several else 1 / num_classes))
    if several:
        return target + (1 - share) * (labels > 0)
    target[np.arange(len(labels)), labels] += 1 - share
    return target


def _cross_entropy(logits: np.ndarray, target: np.ndarray, several_labels: bool) -> tuple[float, np.ndarray]:
    """The mean over the rows, or rows and classes, and its gradient [N, K]."""
    if several_labels:
        value = -(target * log_expit(logits) + (1 - target) * log_expit(-logits)).mean()
        return float(value), (expit(logits) - target) / target.size
    value = -(target * log_softmax(logits, axis=1)).sum(axis=1).mean()
    return float(value), (softmax(logits, axis=1) - target) / len(target)


def weighted_sum(factors: Sequence[float] | np.ndarray, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Σ factor · array, for arrays of the same shape."""
    return sum((factor * array for factor, array in zip(factors, arrays, strict=True)), np.zeros_like(arrays[0]))
