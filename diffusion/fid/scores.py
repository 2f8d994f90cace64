"""The Inception Score. ``M`` images, ``K`` logits."""

from typing import NamedTuple

import numpy as np

from files.errors import UserError

SPLITS = 10  # Salimans et al. (2016)
_BLOCK = 4096  # images


class Score(NamedTuple):
    """The Inception Score.

    Attributes:
        value: the mean over splits, as it is published.
        deviation: over the splits.
        whole: of all images at once; splits of fewer images have lower scores.
    """

    value: float
    deviation: float
    whole: float


def inception_score(logits: np.ndarray, splits: int = SPLITS, seed: int = 0) -> Score:
    """exp of the mean divergence of p(y|x) from p(y) (Salimans et al. 2016), over splits of the shuffled images.

    Files come by class, and a split of few classes has a low score: a seeded permutation makes splits alike.

    Raises:
        UserError: fewer images than splits.
    """
    if len(logits) < splits:
        raise UserError(f"{len(logits)} images are too few for {splits} splits of the Inception Score")
    order = np.random.default_rng(seed).permutation(len(logits))
    scores = [_score(logits, np.sort(rows)) for rows in np.array_split(order, splits)]
    return Score(float(np.mean(scores)), float(np.std(scores)), _score(logits, np.arange(len(logits))))


def _score(logits: np.ndarray, rows: np.ndarray) -> float:
    """exp(H(E p) − E H(p)), with sums over blocks."""
    total, entropy = np.zeros(logits.shape[1]), 0.0
    for start in range(0, len(rows), _BLOCK):
        x = np.asarray(logits[rows[start : start + _BLOCK]], np.float64)
        log_p = x - x.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        total += p.sum(axis=0)
        entropy -= float((p * log_p).sum())
    mean = total / len(rows)
    occurring = mean[mean > 0.0]
    return float(np.exp(-(occurring * np.log(occurring)).sum() - entropy / len(rows)))
