"""Raw texts → token ids in a TensorFlow graph, the same ids as from the tokenisers in ``tokens/tokenisers.py``.

With a linear path (``linear/path.py``), also its scores. ``N`` texts of ``F`` fields, ``T`` tokens, ``K`` classes; a
ragged tensor has one row of ids for each text.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from files.errors import UserError
from text_cls.graph import tables
from text_cls.graph.html import HtmlStripper
from text_cls.graph.linear import Scores
from text_cls.graph.pieces import Pieces
from text_cls.graph.subwords import Merger
from text_cls.graph.unicode import Composer, as_utf8, by_row, numbers_of
from text_cls.graph.words import Cutter
from text_cls.linear.path import LinearPath
from text_cls.tokens.encoding import Framing
from text_cls.tokens.length_config import WINDOWS
from text_cls.tokens.preprocess import SEP
from text_cls.tokens.tokenisers import PieceTokeniser, SubwordTokeniser, Tokeniser, WordTokeniser
from text_cls.tokens.vocabulary import SEGMENT, SEP_ID, UNK_ID
from text_cls.tokens.wordpiece import WordPiece

RULES = ("unicode", "unicode_runs")  # the rules of ``tokens/words.py`` that are implemented here


class Ids(NamedTuple):
    """Token ids of some texts, and their scores by a linear path."""

    tokens: Any  # ragged [N, (T)] int32, with special tokens, truncated
    has_words: Any  # [N] bool
    scores: Any = None  # [N, K] float32; None without a linear path


def check_expressible(tokeniser: Tokeniser) -> None:
    """Raises UserError for a tokeniser that a graph cannot express; the message names the flag."""
    if isinstance(tokeniser.framing, Framing) and tokeniser.framing.truncate == WINDOWS:
        raise UserError(
            f"--truncate={WINDOWS}: the exported graph cannot split a text into windows; train with another --truncate "
            "to export"
        )
    if isinstance(tokeniser, WordTokeniser | SubwordTokeniser):
        steps, rule = tokeniser.cleaner.config, tokeniser.cleaner.rule
        if steps.stemmer != "none":
            raise UserError(
                f"--stemmer={steps.stemmer}: a TensorFlow graph cannot contain a stemmer of NLTK; train with "
                "--stemmer=none to export"
            )
        if rule not in RULES:
            raise UserError(
                f"the run splits texts into words by the rules of version {rule}, which cannot be exported; train it "
                "again to export"
            )
    elif not isinstance(tokeniser, PieceTokeniser) or not isinstance(tokeniser.cutter, WordPiece):
        raise UserError(
            "--encoder: the exported graph has only BERT's WordPiece, and this encoder has another tokeniser "
            "(tokenizer.json); export a run of another one; for transformers, finetune_bert --export writes it"
        )


class TextGraph(tf.Module):
    """Texts → token ids, and scores.

    Args:
        tokeniser: the graph gives the same ids.
        join_fields: see ``DataConfig``; ``UNTOLD`` takes one field.
        linear: the graph gives its scores; only for a tokeniser of words or subwords.

    Raises:
        UserError: see ``check_expressible``.
    """

    def __init__(self, tokeniser: Tokeniser, join_fields: str, linear: LinearPath | None = None) -> None:
        super().__init__()
        check_expressible(tokeniser)
        spaces = tables.ranges(tables.members(re.compile(r"\s+")))
        self.join_fields, self.blank = join_fields, f"[{spaces}]*"
        if isinstance(tokeniser, PieceTokeniser):
            self.join: str | None = tokeniser.join
            assert isinstance(tokeniser.cutter, WordPiece)
            self.pieces, self.middle = Pieces(tokeniser.cutter), tokeniser.cutter.middle
            first, last = tokeniser.cutter.cls_id, tokeniser.cutter.sep_id
            self.framing = Framing(tokeniser.max_length, tokeniser.truncate, first, last)
            self.bare: Callable[[Any], Any] = self._pairs if tokeniser.pairs else self._pieces
        else:
            assert isinstance(tokeniser, WordTokeniser | SubwordTokeniser)
            self.words, self.framing = _Words(tokeniser), tokeniser.framing
            self.scores = None if linear is None else Scores(linear)
            self.bare = self._words

    def __call__(self, texts: Any) -> Ids:
        """[N, F] strings → token ids, and scores; bytes that are not UTF-8 are read as U+FFFD."""
        count, fields = tf.shape(texts)[0], tf.shape(texts)[1]
        texts = tf.reshape(as_utf8(tf.reshape(texts, [-1])), [count, fields])
        if self.join_fields == "space":
            texts = tf.strings.reduce_join(texts, axis=1, separator=" ")[:, None]
        return self.bare(texts)

    def _words(self, texts: Any) -> Ids:
        bare, words = self.words(texts)
        scores = None if self.scores is None else self.scores(words)
        return Ids(_framed(bare, self.framing), bare.row_lengths() > 0, scores)

    def _pieces(self, texts: Any) -> Ids:
        blank = tf.strings.regex_full_match(texts, self.blank)
        some = tf.ragged.boolean_mask(texts, ~blank)
        bare = self.pieces(tf.strings.reduce_join(some, axis=-1, separator=self.join))
        return Ids(_framed(bare, self.framing), bare.row_lengths() > 0)

    def _pairs(self, texts: Any) -> Ids:
        """Two fields as segments A and B; as ``PairFraming``."""
        first, second = self.pieces(texts[:, 0]), self.pieces(texts[:, 1])
        a, b = first.row_lengths(), second.row_lengths()
        opening, closing, none = self.framing.first, self.framing.last, tf.zeros_like(first.row_lengths())
        assert closing is not None
        keep_a, keep_b = _longest_first(a, b, max(0, self.framing.max_length - 2 - self.middle))
        second = _cut(second, keep_b, none)
        second = second.with_values(second.values + SEGMENT)
        middle = [_each(closing, first)] * self.middle
        parts = [_each(opening, first), _cut(first, keep_a, none), *middle, second, _each(closing + SEGMENT, first)]
        return Ids(tf.concat(parts, axis=1), a + b > 0)


class _Words(tf.Module):
    """Texts → ids of words or subwords, without special tokens."""

    def __init__(self, tokeniser: WordTokeniser | SubwordTokeniser) -> None:
        super().__init__()
        cleaner = tokeniser.cleaner
        self.html = HtmlStripper() if cleaner.config.strip_html else None
        self.cutter = Cutter(cleaner.config, Composer(), cleaner.rule == "unicode_runs")
        if isinstance(tokeniser, SubwordTokeniser):
            self.numbers: Callable[[Any], Any] = Merger(tokeniser.vocabulary)
        else:
            self.places = numbers_of({word: place for place, word in enumerate(tokeniser.vocabulary.words)}, UNK_ID)
            self.numbers = lambda words: tf.RaggedTensor.from_uniform_row_length(self.places.lookup(words), 1)
        self.stops = numbers_of(dict.fromkeys(cleaner.stop_words, 1), 0) if cleaner.stop_words else None

    def __call__(self, texts: Any) -> tuple[Any, Any]:
        """[N, F] → ragged [N, (ids)] int32 and [N, (words)] strings, <SEP> between the fields that have any words."""
        count, fields = tf.shape(texts)[0], tf.shape(texts)[1]
        flat = tf.reshape(texts, [-1])
        found, rows = self.cutter(flat if self.html is None else self.html(flat))
        some = tf.reshape(tf.math.bincount(tf.cast(rows, tf.int32), minlength=count * fields) > 0, [count, fields])
        if self.stops is not None:
            goes_on = tf.equal(self.stops.lookup(self.cutter.folded(found)), 0)
            found, rows = tf.boolean_mask(found, goes_on), tf.boolean_mask(rows, goes_on)
        number = tf.cast(some, tf.int32)
        between = some & (tf.cumsum(number, axis=1, exclusive=True) > 0)  # fields with a <SEP> before them
        ids = self.numbers(found)
        of_ids = _joined(ids.values, tf.gather(rows, ids.value_rowids()), SEP_ID, between)
        return of_ids, _joined(found, rows, SEP, between)


def _joined(values: Any, rows: Any, separator: int | str, between: Any) -> Any:
    """Values of [N, F] fields → ragged [N, (values)], with a separator before the fields of ``between``."""
    count, fields = tf.shape(between)[0], tf.shape(between)[1]
    places = tf.where(tf.reshape(between, [-1]))[:, 0]
    separators = by_row(tf.fill([tf.size(places)], separator), places, count * fields)
    joined = tf.concat([separators, by_row(values, rows, count * fields)], axis=1)
    return by_row(joined.values, joined.value_rowids() // tf.cast(tf.maximum(fields, 1), tf.int64), count)


def _framed(bare: Any, framing: Framing) -> Any:
    """Applies ``Framing.apply`` to every text."""
    closing = [] if framing.last is None else [_each(framing.last, bare)]
    room = framing.max_length - 1 - len(closing)
    head = _head(framing, room)
    lengths = bare.row_lengths()
    long = lengths > room
    first = tf.where(long, tf.cast(head, tf.int64), lengths)
    last = tf.where(long, tf.cast(room - head, tf.int64), tf.zeros_like(lengths))
    return tf.concat([_each(framing.first, bare), _cut(bare, first, last), *closing], axis=1)


def _head(framing: Framing, room: int) -> int:
    """The number of a longer text's first ids that are kept, found by framing a text of twice the length."""
    kept = framing.apply(np.arange(1, 2 * room + 3))[1 : room + 1]
    return int(np.count_nonzero(kept == np.arange(1, room + 1)))


def _cut(ids: Any, first: Any, last: Any) -> Any:
    """The ``first`` first and the ``last`` last ids of each text."""
    lengths = ids.row_lengths()
    within = tf.ragged.range(lengths)
    stays = (within < first[:, None]) | (within >= (lengths - last)[:, None])
    return tf.ragged.boolean_mask(ids, stays)


def _each(token: int, ids: Any) -> Any:
    """[N, 1]: the token for every text."""
    return tf.RaggedTensor.from_uniform_row_length(tf.fill([ids.nrows()], token), 1)


def _longest_first(a: Any, b: Any, room: int) -> tuple[Any, Any]:
    """Applies ``pairs.longest_first`` to every pair."""
    short, long = tf.minimum(a, b), tf.maximum(a, b)
    long = tf.where(short + long > room, tf.maximum(short, room - short), long)
    both = short + long > room
    short = tf.where(both, tf.cast(room // 2, tf.int64), short)
    long = tf.where(both, tf.cast(room - room // 2, tf.int64), long)
    return tf.where(a > b, long, short), tf.where(a > b, short, long)
