"""Linear models on n-grams, each with one weight matrix: a linear SVM and multinomial naive Bayes.

Shapes: ``N`` texts, ``F`` features, ``K`` classes.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags_array

from text_cls.linear.nb_svm import log_count_ratios, present

CS = (0.3, 1.0, 3.0)  # the inverse strengths of the SVM's penalty to try
ALPHA = 0.1  # of naive Bayes: added to every count


class Fitted(NamedTuple):
    """A linear model.

    Attributes:
        weights: [F, K] float32.
        bias: [K] float32.
    """

    weights: np.ndarray
    bias: np.ndarray


def linear_svm(
    x: csr_matrix,
    labels: np.ndarray,
    num_classes: int,
    class_weights: np.ndarray | None,
    C: float,
    tol: float = 1e-4,
) -> Fitted:
    """scikit-learn's linear SVM (squared hinge), each class against the others.

    For two classes, the features are first multiplied by their log-count ratios (Wang & Manning 2012). The score of a
    class without texts is -1, the target margin of other classes; that of a class of all texts is 1.

    Args:
        x: [N, F].
        labels: [N] class numbers, or [N, K] of 0 and 1.
        num_classes: K.
        class_weights: [K] weights of the errors of each class, or None for 1.
        C: inverse strength of the penalty.
        tol: of scikit-learn's stopping rule.
    """
    weights, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -1.0)
    factors = _factors(class_weights, num_classes)
    if labels.ndim == 2:
        for k, truth in enumerate(labels.T > 0):
            bias[k] = 1.0 if truth.all() else -1.0
            if truth.any() and not truth.all():
                (weights[k],), (bias[k],) = _svm(x, truth, {False: 1.0, True: factors[k]}, C, tol)
        return _as_fitted(weights, bias)
    there = np.unique(labels)
    of_class = {int(k): factors[k] for k in there}
    if len(there) == 2:
        ratios = log_count_ratios(present(x), labels == there[1], alpha=1.0)
        (found,), (shift,) = _svm(x @ diags_array(ratios), labels, of_class, C, tol)
        weights[there], bias[there] = np.outer([-0.5, 0.5], found * ratios), np.array([-0.5, 0.5]) * shift
    elif len(there) == 1:
        bias[there] = 1.0
    else:
        weights[there], bias[there] = _svm(x, labels, of_class, C, tol)
    return _as_fitted(weights, bias)


def naive_bayes(x: csr_matrix, labels: np.ndarray, num_classes: int, class_weights: np.ndarray | None) -> Fitted:
    """Multinomial naive Bayes on the same values: log-probabilities minus their mean over the classes.

    With several labels a text, the log-odds of each class. A class without texts gets, for each feature, the smallest
    value of the other classes; with several labels a text, a class of no text or of all texts gets 0. Arguments as for
    ``linear_svm``.
    """
    weights, bias = np.zeros((num_classes, x.shape[1])), np.zeros(num_classes)
    factors = _factors(class_weights, num_classes)
    if labels.ndim == 2:
        for k, truth in enumerate(labels.T > 0):
            if truth.any() and not truth.all():
                found = _bayes(x, truth, np.where(truth, factors[k], 1.0))
                weights[k], bias[k] = (part[1] - part[0] for part in found)
        return _as_fitted(weights, bias)
    there = np.unique(labels)
    found = _bayes(x, labels, factors[labels])
    weights[:], bias[:] = (part.min(axis=0) for part in found)
    weights[there], bias[there] = found
    return _as_fitted(weights - weights[there].mean(axis=0), bias - bias[there].mean())


def _factors(class_weights: np.ndarray | None, num_classes: int) -> np.ndarray:
    return np.ones(num_classes) if class_weights is None else class_weights.astype(np.float64)


def _as_fitted(weights: np.ndarray, bias: np.ndarray) -> Fitted:
    """A model with [K, F] weights."""
    return Fitted(weights.T.astype(np.float32), bias.astype(np.float32))


def _bayes(x: csr_matrix, labels: np.ndarray, row_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the features by class, and of the classes that occur.

    They are those of scikit-learn's ``MultinomialNB``, without its dense [N, K] labels.
    """
    there, place = np.unique(labels, return_inverse=True)
    of_class = csr_matrix((row_weights, (place, np.arange(len(labels)))), (len(there), len(labels)))
    counts = (of_class @ x).toarray() + ALPHA
    rows = np.bincount(place, row_weights)
    return np.log(counts) - np.log(counts.sum(axis=1, keepdims=True)), np.log(rows) - np.log(rows.sum())


def _svm(
    x: csr_matrix, labels: np.ndarray, class_weights: dict[Any, float], C: float, tol: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the second class if there are two, otherwise of each class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result is good enough
        svm = LinearSVC(C=C, tol=tol, class_weight=class_weights, random_state=0).fit(x, labels)
    return svm.coef_, svm.intercept_
