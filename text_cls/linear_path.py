"""Linear models on n-grams beside the network: their scores are added to its logits (wide & deep, Cheng et al. 2016).

A text's logits are network(tokens) + w_1 · SVM(n-grams) + w_2 · naive Bayes(n-grams), over one temperature. The linear
models are fitted on the training texts, the weights and the temperature on validation. (Trained with the network by
gradients, a wide part learns the training texts so fast that the network stops learning.) Then the linear models are
fitted once more, on training and validation texts. The sum of linear models is one matrix.

Shapes: ``N`` texts, ``n`` words of all texts, ``F`` features, ``K`` classes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.special import expit, log_expit, log_softmax, softmax

from files.arrays import write_npz
from files.errors import UserError
from files.npz import read_npz
from text_cls.linear_models import MODELS
from text_cls.ngrams import NGrams
from text_cls.preprocess import Corpus

FILE = "linear.npz"
MOST_WORDS_WITH_PARTS = 2_000_000  # in the training texts, for auto to read parts of words
_MOST_NUMBERS = 2**24  # weights of a model; of rows and classes in the fit of factors
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

    def contributions(self, corpus: Corpus, labels: Sequence[int]) -> np.ndarray:
        """[n] float32: what each word adds to its text's score of one class; with its ``bias`` they add up to it.

        ``labels``: [N] the number of that class.
        """
        values, label = self.ngrams.of_words(corpus), np.repeat(np.asarray(labels, np.int64), corpus.lengths)
        added = values.data * self.weights[values.col, label[values.row]]
        return np.bincount(values.row, added, len(corpus.ids)).astype(np.float32)

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
        floats = dict.fromkeys(("idf", "weights", "bias"), np.float32)
        types = {"words": np.str_, "parts": np.str_, "pairs": np.int64} | floats
        if {name: array.dtype.type for name, array in arrays.items()} != types:
            raise UserError(f"{path}: damaged: not the arrays of a linear path")
        words, parts = (tuple("\n".join(arrays[name].ravel()).split("\n")) for name in ("words", "parts"))
        words, parts = (() if texts == ("",) else texts for texts in (words, parts))
        ngrams = NGrams(words, arrays["pairs"], parts, arrays["idf"])
        found = cls(ngrams, arrays["weights"], arrays["bias"])
        shapes = (ngrams.pairs.ndim, ngrams.idf.shape, found.weights.shape, found.bias.shape)
        if shapes != (1, (len(ngrams),), (len(ngrams), num_classes), (num_classes,)):
            raise UserError(f"{path}: damaged: not of {len(ngrams):,} features and {num_classes} classes")
        if not ngrams.is_whole() or not all(np.isfinite(arrays[name]).all() for name in floats):
            raise UserError(f"{path}: damaged: features that are in no order, or what is no number")
        ngrams.prepare()
        return found


class Fusion(NamedTuple):
    """How logits of several kinds become one.

    Attributes:
        logits: [N, K] (network + Σ weight · scores) / temperature.
        weights: of the scores; 0 where some do not help.
        temperature: with which the labels are likeliest.
    """

    logits: np.ndarray
    weights: tuple[float, ...]
    temperature: float = 1.0


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
    fitted = np.linspace(0, len(labels) - 1, min(len(labels), max(1, _MOST_NUMBERS // network.shape[1]))).astype(int)
    every = [x[fitted].astype(np.float64) for x in (network, *scores)]
    target = _smoothed(labels[fitted], network.shape[1])

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _cross_entropy(_sum(factors, every), target, labels.ndim == 2)
        return value, np.array([(gradient * x).sum() for x in every])

    bounds = [(_LEAST_OF_NETWORK, None)] + [(0.0, None)] * len(scores)
    factors = minimize(loss, np.ones(len(every)), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = tuple(float(np.float32(s / factors[0])) for s in factors[1:])
    logits = _sum(factors.astype(np.float32), (network, *scores)).astype(np.float32)
    return Fusion(logits, weights, float(1 / factors[0]))


def _smoothed(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """[N, K] the labels, with a share of 1 / (N + 1) of any class."""
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
        with_parts = kind == "parts" or (kind == "auto" and len(corpora[0].ids) <= MOST_WORDS_WITH_PARTS)
        ngrams = NGrams.build(corpora[0], with_parts, _MOST_NUMBERS // num_classes)
        if not len(ngrams) or len(np.unique(labels[0], axis=0)) < 2:
            return None
        train, validation = map(ngrams.of, corpora)
        fitted = [fit(train, labels[0], num_classes, class_weights) for fit in MODELS]
        scores = tuple(LinearPath(ngrams, *one).of_features(validation) for one in fitted)
        x, both = vstack([train, validation], "csr"), np.concatenate(labels)
        return cls(ngrams, x, both, num_classes, class_weights, scores)

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [fit.__name__ for fit in MODELS]

    def path(self, weights: Sequence[float]) -> LinearPath:
        """The models' sum with these weights, fitted on training and validation texts."""
        fitted = [fit(self.x, self.labels, self.num_classes, self.class_weights) for fit in MODELS]
        found = [_sum(weights, part).astype(np.float32) for part in zip(*fitted, strict=True)]
        return LinearPath(self.ngrams, *found)

    def weighed(self, weights: Sequence[float]) -> np.ndarray:
        """[N, K] ``scores`` with these weights."""
        return _sum(weights, self.scores).astype(np.float32)
