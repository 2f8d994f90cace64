"""``WordPiece`` in a TensorFlow graph: texts → the ids of their pieces.

``R`` texts, ``S`` parts of texts between special tokens, ``W`` words.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from text_cls.graph import tables
from text_cls.graph.tables import Expansion
from text_cls.graph.unicode import (
    APART,
    CodePoints,
    by_row,
    decode,
    decomposed,
    encode,
    expanded,
    is_utf8,
    look_up,
    numbers_of,
)
from text_cls.tokens.wordpiece import MAX_WORD, WordPiece
from text_cls.tokens.wordpiece_characters import cleaned, folded, spaced


@functools.cache
def _clean(split_cjk: bool) -> Expansion:
    return tables.expansion(lambda c: cleaned(c, split_cjk))


@functools.cache
def _fold(lower_case: bool, strip_accents: bool) -> Expansion:
    return tables.expansion(lambda c: spaced(folded(c, lower_case, strip_accents)))


class Pieces(tf.Module):
    """The tokeniser of one vocabulary; holds the tables of pieces and of special tokens."""

    def __init__(self, wordpiece: WordPiece) -> None:
        super().__init__()
        case = wordpiece.lower_case, wordpiece.strip_accents
        self.strip_accents, self.unknown = wordpiece.strip_accents, wordpiece.unk_id
        self.clean, self.fold = _clean(wordpiece.split_cjk), _fold(*case)
        self.special = _Tokens(wordpiece._special)
        self.folded = _Tokens(wordpiece._folded) if wordpiece._folded else None
        if self.folded:
            self.fold_only = tables.expansion(lambda c: folded(c, *case))
        places = wordpiece._pieces.places
        self.lengths = sorted({*wordpiece._pieces.first, *wordpiece._pieces.later}, reverse=True)
        self.places = numbers_of(places, -1)

    def __call__(self, texts: Any) -> Any:
        """[R] texts → ragged [R, (pieces)] int32."""
        return self.special.apart(texts, self._words if self.folded is None else self._between)

    def _between(self, texts: Any) -> Any:
        """``WordPiece._between``."""
        assert self.folded is not None
        read = encode(self._normal(texts, self.fold_only), tf.size(texts))
        return self.folded.apart(read, self._words)

    def _normal(self, texts: Any, fold: Expansion) -> CodePoints:
        points = expanded(decode(texts), self.clean)
        if self.strip_accents:
            points = decomposed(points)
        return expanded(points, fold)

    def _words(self, texts: Any) -> Any:
        """[S] → ragged [S, (pieces)]."""
        points = self._normal(texts, self.fold)
        inside = tf.equal(look_up(tables.spaces(), points.codes), 0)
        before = tf.concat([[False], inside], 0)[:-1] & tf.equal(tf.concat([[-1], points.rows], 0)[:-1], points.rows)
        first = tf.boolean_mask(inside & ~before, inside)
        codes, rows = tf.boolean_mask(points.codes, inside), tf.boolean_mask(points.rows, inside)
        number = tf.cast(tf.cumsum(tf.cast(first, tf.int32)) - 1, tf.int64)
        words = tf.strings.unicode_encode(by_row(codes, number, tf.reduce_sum(tf.cast(first, tf.int64))), "UTF-8")
        different, which = tf.unique(words)
        pieces = tf.gather(self._cut(different), which)  # ragged [W, (pieces)]
        of_word = tf.gather(tf.boolean_mask(rows, first), pieces.value_rowids())
        return by_row(pieces.values, of_word, tf.size(texts))

    def _cut(self, words: Any) -> Any:
        """[W] distinct words → ragged [W, (pieces)]: from the left, always the longest piece that fits."""
        length = tf.strings.length(words, "UTF8_CHAR")
        start = tf.where(length > MAX_WORD, -1, 0)  # -1: the word is unknown
        free = [tf.TensorShape([None])] * 3
        start, which, ids = tf.while_loop(
            lambda start, which, ids: tf.reduce_any((start >= 0) & (start < length)),
            lambda start, which, ids: self._step(words, length, start, which, ids),
            (start, tf.zeros([0], tf.int32), tf.zeros([0], tf.int32)),
            shape_invariants=tuple(free),
        )
        known = tf.gather(start, which) >= 0
        unknown = tf.cast(tf.where(start < 0)[:, 0], tf.int32)
        which = tf.concat([tf.boolean_mask(which, known), unknown], 0)
        ids = tf.concat([tf.boolean_mask(ids, known), tf.fill([tf.size(unknown)], self.unknown)], 0)
        order = tf.argsort(which, stable=True)
        return by_row(tf.gather(ids, order), tf.cast(tf.gather(which, order), tf.int64), tf.size(words))

    def _step(self, words: Any, length: Any, start: Any, which: Any, ids: Any) -> tuple[Any, Any, Any]:
        """Finds the next piece of every word that is not finished."""
        active = tf.cast(tf.where((start >= 0) & (start < length))[:, 0], tf.int32)
        begin = tf.gather(start, active)[:, None]
        ends = begin + np.array(self.lengths, np.int32)  # [active, lengths]
        fits = ends <= tf.gather(length, active)[:, None]
        word = tf.broadcast_to(tf.gather(words, active)[:, None], tf.shape(ends))
        begins = tf.broadcast_to(begin, tf.shape(ends))
        part = tf.strings.substr(word, begins, ends - begins, "UTF8_CHAR")
        place = tf.where(fits, self.places.lookup(tf.where(begins > 0, "##" + part, part)), -1)
        longest = tf.argmax(place >= 0, axis=1, output_type=tf.int32)
        found = tf.gather(place, longest, batch_dims=1)
        end = tf.where(found >= 0, tf.gather(ends, longest, batch_dims=1), -1)
        start = tf.tensor_scatter_nd_update(start, active[:, None], end)
        real = found >= 0
        which = tf.concat([which, tf.boolean_mask(active, real)], 0)
        return start, which, tf.concat([ids, tf.boolean_mask(found, real)], 0)


class _Tokens(tf.Module):
    """Tokens that are separated from the text around them."""

    def __init__(self, places: dict[str, int]) -> None:
        super().__init__()
        self.pattern = f"({_any_of(filter(is_utf8, places))})"
        self.places = numbers_of(places, -1)

    def apart(self, texts: Any, ids_of: Callable[[Any], Any]) -> Any:
        """[R] → ragged [R, (pieces)]: the tokens' ids, and between them ``ids_of``: [S] → ragged [S, (pieces)]."""
        marked = tf.strings.regex_replace(texts, self.pattern, APART + rb"\1" + APART)
        parts = tf.strings.split(marked, APART)  # [R, (parts)]
        own = self.places.lookup(parts.values)
        there = own >= 0
        alone = by_row(tf.boolean_mask(own, there), tf.where(there)[:, 0], tf.size(own))  # [S, (0 or 1)]
        found = tf.concat([alone, ids_of(tf.where(there, "", parts.values))], axis=1)
        return by_row(found.values, tf.gather(parts.value_rowids(), found.value_rowids()), parts.nrows())


def _any_of(tokens: Iterable[str]) -> str:
    """A pattern for any of the tokens, the longest first; as ``wordpiece._any_of``."""
    return "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
