"""The linear path: linear models on n-grams whose scores are added to the logits (wide & deep, Cheng et al. 2016).

A text's logits are (network(tokens) + w_1 · SVM(n-grams) + w_2 · naive Bayes(n-grams)) / temperature; the weighted sum
of the linear models is one matrix. ``fit.py`` fits them. (If the linear part is trained with the network by
gradients, it learns the training texts so fast that the network stops learning.)

Shapes: ``N`` texts, ``n`` words of all texts, ``F`` features, ``K`` classes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from files.arrays import write_npz
from files.errors import UserError
from files.npz import read_npz
from text_cls.linear.ngrams import NGrams
from text_cls.tokens.preprocess import Corpus

FILE = "linear.npz"


@dataclasses.dataclass(frozen=True)
class LinearPath:
    """The linear models' weighted sum: n-grams → scores.

    Attributes:
        ngrams: the features.
        weights: [F, K] float32.
        bias: [K] float32.
    """

    ngrams: NGrams
    weights: np.ndarray
    bias: np.ndarray

    def scores(self, corpus: Corpus) -> np.ndarray:
        """[N, K] float32 scores of texts."""
        return self.of_features(self.ngrams.of(corpus))

    def of_features(self, x: csr_matrix) -> np.ndarray:
        """Scores for [N, F] values of the features."""
        return np.asarray(x @ self.weights + self.bias, np.float32)

    def contributions(self, corpus: Corpus, labels: Sequence[int]) -> np.ndarray:
        """[n] float32: how much each word adds to its text's score of one class; the ``bias`` is the rest of the score.

        ``labels`` [N] are the numbers of the class for each text.
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
        """Reads the file of ``save``.

        Raises:
            UserError: the file is missing, damaged, or for another number of classes.
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
            raise UserError(f"{path}: damaged: features that are not in order, or weights that are not finite")
        ngrams.prepare()
        return found
