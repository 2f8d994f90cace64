"""``LinearPath`` in a TensorFlow graph: the words of texts → their scores.

``N`` texts, ``n`` words of all texts, ``d`` distinct words of each text (both concatenated), ``D`` distinct words of
all texts, ``F`` features, ``K`` classes.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from text_cls.graph.unicode import numbers_of
from text_cls.linear.path import LinearPath
from text_cls.linear.word_parts import LONGEST, MOST_CHARACTERS, SHORTEST
from text_cls.tokens.preprocess import SEP


class _Found(NamedTuple):
    """Features of texts; a feature may occur several times."""

    rows: Any  # [.] int64, number of the text
    features: Any  # [.] int64
    counts: Any  # [.] int64


class Scores(tf.Module):
    """``LinearPath.scores`` of the linear path ``path``."""

    def __init__(self, path: LinearPath) -> None:
        super().__init__()
        ngrams = path.ngrams
        self.first_pair, self.first_part = len(ngrams.words), len(ngrams.words) + len(ngrams.pairs)
        self.words = numbers_of({word: place for place, word in enumerate(ngrams.words)}, -1)
        parts = {part: place for place, part in enumerate(ngrams.parts)}
        self.parts: Any = numbers_of(parts, -1) if parts else None
        self.pairs: Any = _kept(ngrams.pairs) if len(ngrams.pairs) else None
        self.idf, self.weights, self.bias = map(_kept, (ngrams.idf, path.weights, path.bias))

    def __call__(self, words: Any) -> Any:
        """Ragged [N, (words)] strings, <SEP> between fields → [N, K] float32."""
        rows = words.value_rowids()
        different, which = tf.unique(words.values, tf.int64)
        known = tf.cast(self.words.lookup(different), tf.int64)
        size = tf.maximum(tf.size(different, tf.int64), 1)
        keys, _, counts = tf.unique_with_counts(rows * size + which, tf.int64)  # [d]: long texts repeat their words
        of_texts = _Found(keys // size, keys % size, counts)
        found = [_where(of_texts._replace(features=tf.gather(known, of_texts.features)))]
        if self.pairs is not None:
            found.append(self._of_pairs(tf.gather(known, which), rows))
        if self.parts is not None:
            found.append(self._of_parts(different, of_texts))
        return self._weighed(_Found(*(tf.concat(values, 0) for values in zip(*found, strict=True))), words.nrows())

    def _of_pairs(self, known: Any, rows: Any) -> _Found:
        """Features of pairs of [n] words, where -1 is an unknown word; as ``NGrams._pairs``."""
        first, second = known[:-1], known[1:]
        follows = tf.equal(rows[:-1], rows[1:]) & (first >= 0) & (second >= 0)
        number = tf.boolean_mask(first * self.first_pair + second, follows)
        pairs = tf.convert_to_tensor(self.pairs)  # after a gather from a variable, every later read makes a copy
        place = tf.minimum(tf.searchsorted(pairs, number, out_type=tf.int64), pairs.shape[0] - 1)
        place = tf.where(tf.equal(tf.gather(pairs, place), number), self.first_pair + place, -1)
        return _where(_Found(tf.boolean_mask(rows[1:], follows), place, tf.ones_like(place)))

    def _of_parts(self, words: Any, of_texts: _Found) -> _Found:
        """Features of parts of [D] words, each word cut once; as ``word_parts.parts_of``."""
        text = tf.strings.substr(tf.strings.join([" ", words, " "]), 0, MOST_CHARACTERS, unit="UTF8_CHAR")
        characters = tf.strings.unicode_split(tf.where(tf.equal(words, SEP), "", text), "UTF-8")
        parts = tf.strings.ngrams(characters, ngram_width=tuple(range(SHORTEST, LONGEST + 1)), separator="")
        places = tf.cast(self.parts.lookup(parts.values), tf.int64)
        parts = tf.ragged.boolean_mask(parts.with_values(self.first_part + places), parts.with_values(places >= 0))
        each = tf.gather(parts, of_texts.features)  # [d, (parts)]
        source = each.value_rowids()
        return _Found(tf.gather(of_texts.rows, source), each.values, tf.gather(of_texts.counts, source))

    def _weighed(self, found: _Found, count: Any) -> Any:
        """The scores of ``count`` texts; as ``NGrams.of``."""
        features = self.idf.shape[0]
        keys, place = tf.unique(found.rows * features + found.features)
        counts = tf.math.unsorted_segment_sum(found.counts, place, tf.size(keys))
        rows, columns = keys // features, keys % features
        values = (1 + tf.math.log(tf.cast(counts, tf.float32))) * tf.gather(self.idf, columns)
        middle = self.first_part if self.parts is not None else 0
        block = 2 * rows + tf.cast(columns >= middle, tf.int64)
        squares = tf.math.unsorted_segment_sum(tf.cast(values, tf.float64) ** 2, block, 2 * count)
        scale = tf.math.rsqrt(tf.where(squares > 0, (2 if middle else 1) * squares, 1))
        values *= tf.cast(tf.gather(scale, block), tf.float32)
        texts = tf.SparseTensor(tf.stack([rows, columns], 1), values, tf.stack([count, features]))
        return tf.sparse.sparse_dense_matmul(texts, self.weights) + self.bias


def _kept(values: np.ndarray) -> Any:
    """A variable: its values are stored outside the graph, which must be smaller than 2 GiB."""
    return tf.Variable(values, trainable=False)


def _where(found: _Found) -> _Found:
    """The features without those of number -1, which are unknown."""
    return _Found(*(tf.boolean_mask(values, found.features >= 0) for values in found))
