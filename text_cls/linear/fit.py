"""Fitting the linear path: C and weights are chosen on held-out rows; then the models are fitted on all rows.

Shapes: ``N`` texts, ``F`` features, ``K`` classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack

from text_cls.evaluation.calibration import negative_log_likelihood
from text_cls.linear.fusion import fuse, weighted_sum
from text_cls.linear.models import CS, Fitted, linear_svm, naive_bayes
from text_cls.linear.ngrams import NGrams
from text_cls.linear.path import LinearPath
from text_cls.tokens.preprocess import Corpus

MOST_WORDS_WITH_PARTS = 2_000_000  # in the training texts, for auto to read parts of words
MOST_CROSS_VALIDATED = 50_000  # texts × classes; with more, only the validation split is held out
_FOLDS = 4
_TOLERANCE = 0.01  # of the fits that choose C: weights are within 0.0002 of the final ones, in half the time
_MOST_NUMBERS = 2**24  # weights of a model


class _Rows(NamedTuple):
    """Features and labels of texts."""

    x: csr_matrix  # [N, F]
    labels: np.ndarray  # [N] class numbers, or [N, K] of 0 and 1

    def take(self, rows: np.ndarray) -> "_Rows":
        return _Rows(self.x[rows], self.labels[rows])


class _Choice(NamedTuple):
    """The result for one value of C."""

    C: float
    weights: tuple[float, ...]  # of the models' scores
    scores: np.ndarray  # [N, K] the weighted sum for held-out rows; NaN for rows that were never held out
    loss: float


@dataclasses.dataclass(frozen=True)
class LinearFit:
    """The linear models of a run, before their weight relative to the network is chosen.

    Attributes:
        ngrams: the features, found in the training texts.
        x: [N, F] the training texts, followed by the validation texts.
        labels: of these texts.
        num_classes: K.
        class_weights: [K] weights of the errors of each class, or None for 1.
        C: of the SVM.
        weights: of the models in their sum, by name.
        scores: [validation texts, K] the weighted sum of models that were not fitted on these texts.
    """

    ngrams: NGrams
    x: csr_matrix
    labels: np.ndarray
    num_classes: int
    class_weights: np.ndarray | None
    C: float
    weights: dict[str, float]
    scores: np.ndarray

    @classmethod
    def of(
        cls,
        kind: str,
        corpora: Sequence[Corpus],
        labels: Sequence[np.ndarray],
        num_classes: int,
        class_weights: np.ndarray | None,
    ) -> "LinearFit | None":
        """Chooses C and the weights of the models by the likelihood of held-out labels.

        Few texts are cross-validated: the models score each quarter of the training and validation texts after a fit on
        the other three. With many texts, they score the validation texts after a fit on the training texts.

        Args:
            kind: see ``LinearConfig.linear``.
            corpora: training and validation texts.
            labels: of each.
            num_classes: K.
            class_weights: see the class.

        Returns:
            None if ``kind`` is none, there are no features, or all texts have the same labels.
        """
        if kind == "none":
            return None
        with_parts = kind == "parts" or (kind == "auto" and len(corpora[0].ids) <= MOST_WORDS_WITH_PARTS)
        ngrams = NGrams.build(corpora[0], with_parts, _MOST_NUMBERS // num_classes)
        if not len(ngrams) or len(np.unique(labels[0], axis=0)) < 2:
            return None
        every = _Rows(vstack([ngrams.of(corpus) for corpus in corpora], "csr"), np.concatenate(labels))
        size, train = len(every.labels), len(labels[0])
        few = size * num_classes <= MOST_CROSS_VALIDATED
        unseen = _folds(every.labels) if few else [np.arange(train, size)]
        best = _choose(every, unseen, num_classes, class_weights)
        weights = {fit.__name__: weight for fit, weight in zip((linear_svm, naive_bayes), best.weights, strict=True)}
        return cls(ngrams, *every, num_classes, class_weights, best.C, weights, best.scores[train:])

    def path(self, factor: float) -> LinearPath:
        """The weighted sum of the models, times a factor; fitted on training and validation texts."""
        fitted = _fit_models(_Rows(self.x, self.labels), self.num_classes, self.class_weights, self.C)
        weights = [factor * weight for weight in self.weights.values()]
        found = [weighted_sum(weights, part).astype(np.float32) for part in zip(*fitted, strict=True)]
        return LinearPath(self.ngrams, *found)


def _folds(labels: np.ndarray) -> list[np.ndarray]:
    """All rows, in parts with the same share of every class; with several labels a text, of every set of labels."""
    _, groups = np.unique(labels, axis=0, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    order = shuffled[np.argsort(groups.reshape(-1)[shuffled], kind="stable")]
    return [np.sort(order[start::_FOLDS]) for start in range(min(_FOLDS, len(labels)))]


def _choose(every: _Rows, unseen: Sequence[np.ndarray], num_classes: int, class_weights: np.ndarray | None) -> _Choice:
    """The best of ``CS``; larger values are tried as long as they are better.

    Args:
        every: all rows.
        unseen: the parts to hold out, one after another; rows in no part are only used for fitting.
        num_classes: K.
        class_weights: see ``LinearFit``.
    """
    best: _Choice | None = None
    for C in CS:  # not in parallel: liblinear has one random generator for all threads
        parts = [_scores_without(every, num_classes, class_weights, C, rows) for rows in unseen]
        found = _combined(C, every.labels, unseen, parts)
        if best is not None and found.loss >= best.loss:
            break
        best = found
    assert best is not None
    return best


def _scores_without(
    every: _Rows, num_classes: int, class_weights: np.ndarray | None, C: float, rows: np.ndarray
) -> list[np.ndarray]:
    """[rows, K] scores by each model, fitted on all other rows."""
    fitted = _fit_models(
        every.take(np.setdiff1d(np.arange(len(every.labels)), rows)), num_classes, class_weights, C, _TOLERANCE
    )
    x = every.x[rows]
    return [np.asarray(x @ model.weights + model.bias, np.float32) for model in fitted]


def _combined(
    C: float, labels: np.ndarray, unseen: Sequence[np.ndarray], parts: Sequence[Sequence[np.ndarray]]
) -> _Choice:
    """The weighted sum of the models' scores with the highest likelihood of the labels."""
    rows = np.concatenate(unseen)
    scores = [np.concatenate(model) for model in zip(*parts, strict=True)]
    fused = fuse(np.zeros_like(scores[0]), scores, labels[rows])
    summed = np.full((len(labels), scores[0].shape[1]), np.nan, np.float32)
    summed[rows] = weighted_sum(fused.weights, scores)
    return _Choice(C, fused.weights, summed, negative_log_likelihood(fused.logits, labels[rows]))


def _fit_models(
    rows: _Rows, num_classes: int, class_weights: np.ndarray | None, C: float, tol: float = 1e-4
) -> list[Fitted]:
    return [
        linear_svm(*rows, num_classes, class_weights, C, tol),
        naive_bayes(*rows, num_classes, class_weights),
    ]
