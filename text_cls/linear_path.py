"""Linear models on n-grams beside the network: their scores are added to its logits (wide & deep, Cheng et al. 2016).

A text's logits are network(tokens) + w_1 · SVM(n-grams) + w_2 · naive Bayes(n-grams), over one temperature. The linear
models are fitted on the training texts by scikit-learn, the weights and the temperature on validation. (Trained with
the network by gradients, a wide part learns the training texts so fast that the network stops learning.) Then the
linear models are fitted once more, on training and validation texts. The sum of linear models is one matrix.

Shapes: ``N`` texts, ``n`` words of all texts, ``F`` features, ``K`` classes.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags_array, vstack
from scipy.special import expit, log_expit, log_softmax, softmax

from files.arrays import write_npz
from files.errors import UserError
from files.npz import read_npz
from text_cls.nb_svm import log_count_ratios, present
from text_cls.ngrams import NGrams
from text_cls.preprocess import Corpus

FILE = "linear.npz"
# Made on validation rows of AG News, HuffPost, IMDB and five sets of short English texts: docs/ablation.md.
C_OF_TWO, C_OF_SEVERAL = 0.3, 0.5  # of the SVM: inverse strength of its penalty, with log-count ratios and without
ALPHA = 0.1  # of naive Bayes: added to every count
MOST_WORDS = 2_000_000  # in the training texts, up to which auto reads parts of words
_MOST_NUMBERS = 2**25  # weights: 128 MiB
_LEAST_OF_NETWORK = 0.1  # what is left of the network's logits when both are weighed


@dataclasses.dataclass(frozen=True)
class LinearPath:
    """What gives a text its scores.

    Attributes:
        ngrams: the features.
        weights: [F, K] float32.
        bias: [K] float32.
    """

    ngrams: NGrams
    weights: np.ndarray
    bias: np.ndarray

    def scores(self, corpus: Corpus) -> np.ndarray:
        """[N, K] float32."""
        return self.of_features(self.ngrams.of(corpus))

    def of_features(self, x: csr_matrix) -> np.ndarray:
        """The same of [N, F] values."""
        return np.asarray(x @ self.weights + self.bias, np.float32)

    def contributions(self, corpus: Corpus) -> np.ndarray:
        """[n, K] what each word adds to its text's scores; with ``bias`` they add up to these.

        The value of a feature is shared by its occurrences in the text, that of a pair by its two words.
        """
        values, counts = self.ngrams.of(corpus), self.ngrams.counts(corpus)
        each = csr_matrix((values.data / counts.data, values.indices, values.indptr), values.shape)  # of an occurrence
        rows = np.repeat(np.arange(len(corpus)), corpus.lengths)
        return np.asarray(self.ngrams.shares(corpus).multiply(each[rows]) @ self.weights, np.float32)

    def save(self, path: Path) -> None:
        """Writes one npz file."""
        texts = {name: np.array("\n".join(getattr(self.ngrams, name))) for name in ("words", "parts")}
        numbers = {"pairs": self.ngrams.pairs, "idf": self.ngrams.idf, "weights": self.weights, "bias": self.bias}
        write_npz(path, texts | numbers)

    @classmethod
    def load(cls, path: Path, num_classes: int) -> "LinearPath":
        """What ``save`` wrote.

        Raises:
            UserError: missing, damaged, or of another number of classes.
        """
        arrays = read_npz(path)
        kinds = {"words": "U", "parts": "U", "pairs": "i", "idf": "f", "weights": "f", "bias": "f"}
        if {name: array.dtype.kind for name, array in arrays.items()} != kinds:
            raise UserError(f"{path}: damaged: not the arrays of a linear path")
        words, parts = (tuple("\n".join(arrays[name].ravel()).split("\n")) for name in ("words", "parts"))
        words, parts = (() if texts == ("",) else texts for texts in (words, parts))
        ngrams = NGrams(words, arrays["pairs"], parts, arrays["idf"])
        found = cls(ngrams, arrays["weights"], arrays["bias"])
        shapes = (ngrams.pairs.ndim, ngrams.idf.shape, found.weights.shape, found.bias.shape)
        if shapes != (1, (len(ngrams),), (len(ngrams), num_classes), (num_classes,)):
            raise UserError(
                f"{path}: damaged: {len(ngrams):,} features and {num_classes} classes do not fit its arrays"
            )
        return found


class Fusion(NamedTuple):
    """How logits of several kinds become one.

    Attributes:
        logits: [N, K] network + Σ weight · scores, over the temperature that is right for them.
        weights: of the scores; 0 where some do not help.
    """

    logits: np.ndarray
    weights: tuple[float, ...]


def fuse(network: np.ndarray, scores: Sequence[np.ndarray], labels: np.ndarray) -> Fusion:
    """The sum of logits that makes the labels likeliest.

    It is a · network + Σ s · scores, no factor negative, with the least cross-entropy, which is convex in them. To the
    N rows one is added whose label is any of the classes alike, as in ``fit_temperature``: otherwise the logits would
    have no bound where no row is wrong.

    Args:
        network: [N, K] its logits of rows that were not trained on.
        scores: [N, K] each, of linear models that have not seen them either.
        labels: [N] class numbers, or [N, K] of 0 and 1 where a text has any number.
    """
    from scipy.optimize import minimize

    if not len(labels) or not np.isfinite(network).all():
        return Fusion(network, (0.0,) * len(scores))
    every = [x.astype(np.float64) for x in (network, *scores)]
    target = _smoothed(labels, network.shape[1])

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _cross_entropy(_sum(factors, every), target, labels.ndim == 2)
        return value, np.array([(gradient * x).sum() for x in every])

    bounds = [(_LEAST_OF_NETWORK, None)] + [(0.0, None)] * len(scores)
    factors = minimize(loss, np.ones(len(every)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = tuple(float(np.float32(s / factors[0])) for s in factors[1:])
    return Fusion(_sum(factors, every).astype(np.float32), weights)


def _smoothed(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[N, K] the labels, with a share of 1 / (N + 1) of any class."""
    several = labels.ndim == 2
    share = 1 / (len(labels) + 1)
    exact = (labels > 0).astype(np.float64) if several else np.eye(num_classes)[labels]
    return (1 - share) * exact + share * (0.5 if several else 1 / num_classes)


def _cross_entropy(logits: np.ndarray, target: np.ndarray, several_labels: bool) -> tuple[float, np.ndarray]:
    """The mean over the rows, or rows and classes, and its gradient [N, K]."""
    if several_labels:
        value = -(target * log_expit(logits) + (1 - target) * log_expit(-logits)).mean()
        return float(value), (expit(logits) - target) / target.size
    value = -(target * log_softmax(logits, axis=1)).sum(axis=1).mean()
    return float(value), (softmax(logits, axis=1) - target) / len(target)


def _sum(factors: Sequence[float] | np.ndarray, arrays: Sequence[np.ndarray]) -> np.ndarray:
    return sum((factor * array for factor, array in zip(factors, arrays, strict=True)), np.zeros_like(arrays[0]))


@dataclasses.dataclass(frozen=True)
class LinearFit:
    """The linear models of a run, whose weights are not known yet.

    Attributes:
        ngrams: the features, of the training texts.
        x: [N, F] the training texts, then the validation texts.
        labels: of these.
        num_classes: K.
        class_weights: [K] of the errors of each class, or None for 1.
        scores: of the validation texts, [N, K] by each of ``MODELS``, fitted on the training texts.
    """

    ngrams: NGrams
    x: csr_matrix
    labels: np.ndarray
    num_classes: int
    class_weights: np.ndarray | None
    scores: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        kind: str,
        corpora: Sequence[Corpus],
        labels: Sequence[np.ndarray],
        num_classes: int,
        class_weights: np.ndarray | None,
    ) -> "LinearFit | None":
        """Fits them on training texts.

        Args:
            kind: of ``LinearConfig.linear``.
            corpora: training and validation texts.
            labels: of each.
            num_classes: K.
            class_weights: see above.

        Returns:
            None where there are none: by ``kind``, without features, or where all texts have the same labels.
        """
        if kind == "none":
            return None
        with_parts = kind == "parts" or (kind == "auto" and len(corpora[0].ids) <= MOST_WORDS)
        ngrams = NGrams.build(corpora[0], with_parts, _MOST_NUMBERS // num_classes)
        if not len(ngrams) or len(np.unique(labels[0], axis=0)) < 2:
            return None
        train, validation = map(ngrams.of, corpora)
        fitted = [fit(train, labels[0], num_classes, class_weights) for fit in MODELS]
        scores = tuple(LinearPath(ngrams, *one).of_features(validation) for one in fitted)
        x, both = vstack([train, validation], "csr"), np.concatenate(labels)
        return cls(ngrams, x, both, num_classes, class_weights, scores)

    def path(self, weights: Sequence[float]) -> LinearPath:
        """The models' sum with these weights, fitted on training and validation texts."""
        fitted = [fit(self.x, self.labels, self.num_classes, self.class_weights) for fit in MODELS]
        found = [_sum(weights, part).astype(np.float32) for part in zip(*fitted, strict=True)]
        return LinearPath(self.ngrams, *found)

    def weighed(self, weights: Sequence[float]) -> np.ndarray:
        """[N, K] ``scores`` with these weights."""
        return _sum(weights, self.scores).astype(np.float32)


class Fitted(NamedTuple):
    """A linear model.

    Attributes:
        weights: [F, K] float32.
        bias: [K] float32.
    """

    weights: np.ndarray
    bias: np.ndarray


def linear_svm(x: csr_matrix, labels: np.ndarray, num_classes: int, class_weights: np.ndarray | None) -> Fitted:
    """A linear SVM (squared hinge) of each class against the others, scikit-learn's.

    Of two classes features are multiplied by their log-count ratios first (Wang & Manning 2012). The score of a class
    that no text has is -1, the margin of what is not of a class, and 1 if every text has it.

    Args:
        x: [N, F].
        labels: [N] class numbers, or [N, K] of 0 and 1.
        num_classes: K.
        class_weights: [K] of the errors of each class, or None for 1.
    """
    weights, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -1.0)
    factors = _factors(class_weights, num_classes)
    if labels.ndim == 2:
        for k, truth in enumerate(labels.T > 0):
            bias[k] = 1.0 if truth.all() else -1.0
            if truth.any() and not truth.all():
                (weights[k],), (bias[k],) = _svm(x, truth, {False: 1.0, True: factors[k]}, C_OF_SEVERAL)
        return _as_fitted(weights, bias)
    there = np.unique(labels)
    of_class = {int(k): factors[k] for k in there}
    if len(there) == 2:
        ratios = log_count_ratios(present(x), labels == there[1], alpha=1.0)
        (found,), (shift,) = _svm(x @ diags_array(ratios), labels, of_class, C_OF_TWO)
        weights[there], bias[there] = np.outer([-0.5, 0.5], found * ratios), np.array([-0.5, 0.5]) * shift
    else:
        weights[there], bias[there] = _svm(x, labels, of_class, C_OF_SEVERAL)
    return _as_fitted(weights, bias)


def naive_bayes(x: csr_matrix, labels: np.ndarray, num_classes: int, class_weights: np.ndarray | None) -> Fitted:
    """Multinomial naive Bayes on the same values, scikit-learn's; its logarithms less their mean over the classes.

    With several labels a text, the log-odds of each class. A class that no text has, or every one, has in each feature
    the least of the others, or 0. Arguments as of ``linear_svm``.
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


MODELS = (linear_svm, naive_bayes)


def _factors(class_weights: np.ndarray | None, num_classes: int) -> np.ndarray:
    return np.ones(num_classes) if class_weights is None else class_weights.astype(np.float64)


def _as_fitted(weights: np.ndarray, bias: np.ndarray) -> Fitted:
    """Of [K, F] weights."""
    return Fitted(weights.T.astype(np.float32), bias.astype(np.float32))


def _bayes(x: csr_matrix, labels: np.ndarray, row_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the features by class, and of the classes."""
    from sklearn.naive_bayes import MultinomialNB

    found = MultinomialNB(alpha=ALPHA).fit(x, labels, sample_weight=row_weights)
    return found.feature_log_prob_, found.class_log_prior_


def _svm(x: csr_matrix, labels: np.ndarray, class_weights: dict[Any, float], C: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the second of two classes, or of each of several."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is as good then
        svm = LinearSVC(C=C, class_weight=class_weights, random_state=0).fit(x, labels)
    return svm.coef_, svm.intercept_
