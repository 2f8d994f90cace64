"""The features of the linear path: counts of words, pairs of words and parts of words, with TF-IDF weights.

The weights are those of scikit-learn's ``TfidfVectorizer`` with ``sublinear_tf``: 1 + log of a count, times
log((1 + N) / (1 + n)) + 1 for a feature that n of N training texts have. Features of only one training text are left
out, and unknown features do not change the length of a vector.

Shapes: ``N`` texts, ``n`` words of all texts, ``W`` known words, ``P`` pairs, ``G`` parts, ``F`` = W + P + G features.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from operator import lt
from typing import Self

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, hstack, vstack

from text_cls.linear.word_parts import LONGEST, SHORTEST, PartNumbers
from text_cls.tokens.preprocess import Corpus

MIN_TEXTS = 2  # a feature must occur in this many training texts


@dataclasses.dataclass(frozen=True)
class NGrams:
    """The features of some training texts.

    Attributes:
        words: [W], sorted.
        pairs: [P] int64, sorted: number of the first word times W, plus number of the second.
        parts: [G], shorter ones first, then by code points; a space is a word's beginning or end. Empty: not used.
        idf: [F] float32.
    """

    words: tuple[str, ...]
    pairs: np.ndarray
    parts: tuple[str, ...]
    idf: np.ndarray

    @classmethod
    def build(cls, corpus: Corpus, with_parts: bool, most: int) -> Self:
        """The features of training texts.

        Args:
            corpus: the texts.
            with_parts: whether parts of words are features too, not only words and pairs.
            most: largest number of features; those that occur in the most texts are kept.
        """
        words, pairs, parts = _features(corpus, with_parts)
        texts_with = [texts for _, texts in (words, pairs, parts)]
        least = _least(np.concatenate(texts_with), most)
        kept = [np.flatnonzero(texts >= least) for texts in texts_with]
        known, places = [words[0][place] for place in kept[0]], np.full(len(words[0]), -1, np.int64)
        places[kept[0]] = np.arange(len(known))
        first, second = (places[word] for word in divmod(pairs[0][kept[1]], max(1, len(words[0]))))
        both = (first >= 0) & (second >= 0)
        texts = np.concatenate([texts_with[0][kept[0]], texts_with[1][kept[1]][both], texts_with[2][kept[2]]])
        idf = np.log((1 + len(corpus)) / (1 + texts)) + 1
        return cls(
            tuple(known),
            (first * len(known) + second)[both],
            tuple(parts[0][place] for place in kept[2]),
            idf.astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.words) + len(self.pairs) + len(self.parts)

    def of(self, corpus: Corpus) -> csr_matrix:
        """[N, F] float32. A row has length 1, or 0 without known features; parts make up half of its squared length."""
        return self._weighed(self.counts(corpus))

    def _weighed(self, counts: csr_matrix) -> csr_matrix:
        """Replaces [N, F] counts by weighted values, in place."""
        counts.data = (1 + np.log(counts.data)) * self.idf[counts.indices]
        return _normalised(counts, len(self.words) + len(self.pairs) if self.parts else 0)

    def counts(self, corpus: Corpus) -> csr_matrix:
        """[N, F] float32: how often each text has each feature."""
        shape = (len(corpus), len(corpus.lexicon))
        every = _matrix(_rows(corpus), corpus.ids, shape)
        known = self._known(corpus.lexicon)
        pairs, at = self._pairs(corpus, known)
        of_pairs = _matrix(_rows(corpus)[at], pairs, (len(corpus), len(self.pairs)))
        parts = every @ self._parts(corpus.lexicon, known)
        counts = hstack([every @ self._of_words(known), of_pairs, parts], "csr")
        counts.sort_indices()
        return counts

    def shares(self, corpus: Corpus) -> csr_matrix:
        """[n, F] float32: the part of each word in the counts; a pair counts half for each of its words."""
        words = _matrix(np.arange(len(corpus.ids)), corpus.ids, (len(corpus.ids), len(corpus.lexicon)))
        known = self._known(corpus.lexicon)
        pairs, at = self._pairs(corpus, known)
        halves = _matrix(np.concatenate([at - 1, at]), np.tile(pairs, 2), (len(corpus.ids), len(self.pairs))) * 0.5
        return hstack([words @ self._of_words(known), halves, words @ self._parts(corpus.lexicon, known)], "csr")

    def of_words(self, corpus: Corpus) -> coo_matrix:
        """[n, F] float32: the part of each word in the values of ``of``.

        The value of a feature is divided among its occurrences in the text, and that of a pair among its two words.
        """
        counts, shares = self.counts(corpus), self.shares(corpus).tocoo()
        values = self._weighed(counts.copy())
        rows = np.repeat(np.arange(len(corpus)), np.diff(values.indptr))
        keys = rows * len(self) + values.indices  # sorted
        places = np.searchsorted(keys, _rows(corpus)[shares.row] * len(self) + shares.col)
        return coo_matrix((shares.data * (values.data / counts.data)[places], (shares.row, shares.col)), shares.shape)

    def is_whole(self) -> bool:
        """Whether ``build`` can have made this: features are sorted and unique, and all numbers are within bounds."""
        words = all(map(lt, self.words, self.words[1:]))
        pairs = not len(self.pairs) or (self.pairs[0] >= 0 and self.pairs[-1] < len(self.words) ** 2)
        pairs = pairs and bool((self.pairs[1:] > self.pairs[:-1]).all())
        parts = all(SHORTEST <= len(part) <= LONGEST for part in self.parts) and self._cut.is_whole
        return words and pairs and parts and bool((np.isfinite(self.idf) & (self.idf > 0)).all())

    def prepare(self) -> None:
        """Cuts the known words into parts now, so that the first text need not wait for it."""
        _ = self._places, self._parts_of_known

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def _cut(self) -> PartNumbers:
        return PartNumbers.of_parts(self.parts)

    @cached_property
    def _parts_of_known(self) -> csr_matrix:
        """[W, G]: counts of the parts of the known words."""
        return self._cut.counts(self.words)

    def _known(self, words: Sequence[str]) -> np.ndarray:
        """The number of each word; -1 for an unknown word."""
        return np.array([self._places.get(word, -1) for word in words], np.int64)

    def _of_words(self, known: np.ndarray) -> csr_matrix:
        """[words, W]: 1 if the word is the feature; ``known`` are the numbers of the words."""
        rows = np.flatnonzero(known >= 0)
        return _matrix(rows, known[rows], (len(known), len(self.words)))

    def _parts(self, words: Sequence[str], known: np.ndarray) -> csr_matrix:
        """[words, G]: counts of each part in each word; ``known`` are the numbers of the words."""
        if not self.parts:
            return csr_matrix((len(words), 0), dtype=np.float32)
        new = np.flatnonzero(known < 0)
        of_new = self._cut.counts([words[place] for place in new.tolist()])
        both, places = vstack([self._parts_of_known, of_new], "csr"), known.copy()
        places[new] = len(self.words) + np.arange(len(new))
        return both[places]

    def _pairs(self, corpus: Corpus, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The known pairs in the texts, and the place of the second word of each among all words."""
        if not len(self.pairs):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        numbers, at = _pair_numbers(corpus, known, len(self.words))
        places = np.minimum(np.searchsorted(self.pairs, numbers), len(self.pairs) - 1)
        found = self.pairs[places] == numbers
        return places[found], at[found]


def _features(corpus: Corpus, with_parts: bool) -> tuple[tuple, tuple, tuple]:
    """Words, pairs and parts of at least ``MIN_TEXTS`` texts, sorted, with their numbers of texts."""
    lexicon = corpus.lexicon
    every = _matrix(_rows(corpus), corpus.ids, (len(corpus), len(lexicon)))
    texts = _texts_with(every)
    order = np.array(sorted(np.flatnonzero(texts >= MIN_TEXTS).tolist(), key=lexicon.__getitem__), np.int64)
    words = [lexicon[place] for place in order]
    known = np.full(len(lexicon), -1, np.int64)
    known[order] = np.arange(len(order))
    numbers, at = _pair_numbers(corpus, known, len(order))
    once = np.unique(numbers * max(1, len(corpus)) + _rows(corpus)[at]) // max(1, len(corpus))  # once a text
    pairs, texts_with_pair = np.unique(once, return_counts=True)
    frequent = texts_with_pair >= MIN_TEXTS
    parts: tuple[list[str], np.ndarray] = ([], np.zeros(0, np.int64))
    if with_parts:
        cut = PartNumbers.of_words(lexicon)
        texts_with_part = _texts_with(every @ cut.counts(lexicon))
        kept = np.flatnonzero(texts_with_part >= MIN_TEXTS)
        parts = cut.parts(kept), texts_with_part[kept]
    return (words, texts[order]), (pairs[frequent], texts_with_pair[frequent]), parts


def _least(texts_with: np.ndarray, most: int) -> int:
    """The smallest number of texts that a feature needs, so that at most ``most`` features are kept."""
    if len(texts_with) <= most:
        return MIN_TEXTS
    return int(np.partition(texts_with, -most - 1)[-most - 1]) + 1


def _pair_numbers(corpus: Corpus, known: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of neighbouring known words in a text, as a number, and the place of its second word."""
    ids, rows = known[corpus.ids] if len(corpus.ids) else np.zeros(0, np.int64), _rows(corpus)
    at = 1 + np.flatnonzero((rows[1:] == rows[:-1]) & (ids[1:] >= 0) & (ids[:-1] >= 0))
    return ids[at - 1] * size + ids[at], at


def _rows(corpus: Corpus) -> np.ndarray:
    """[n] the number of every word's text."""
    return np.repeat(np.arange(len(corpus)), corpus.lengths)


def _matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_matrix:
    found = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    found.sum_duplicates()
    return found


def _texts_with(counts: csr_matrix) -> np.ndarray:
    """The number of rows with each column."""
    return np.bincount(counts.indices, minlength=counts.shape[1])


def _normalised(x: csr_matrix, middle: int) -> csr_matrix:
    """Scales rows to length 1; the columns before and from ``middle`` on get the same length."""
    rows, after = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.indices >= middle
    block = 2 * rows + after
    squares = np.bincount(block, x.data.astype(np.float64) ** 2, 2 * x.shape[0])
    blocks = 2 if middle else 1
    scale = 1 / np.sqrt(np.where(squares > 0, blocks * squares, 1))
    x.data *= scale[block].astype(np.float32)
    return x
