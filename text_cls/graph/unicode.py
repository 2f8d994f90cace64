"""Characters in a TensorFlow graph: concatenated code points of texts, mapped, decomposed and composed as in Python.

Needs TensorFlow and the tables of ``tables.py``. ``n`` characters of all texts, concatenated; ``R`` texts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from text_cls.graph import tables
from text_cls.graph.tables import CharacterTable, Expansion

REPLACEMENT = 0xFFFD
APART = b"\xff"  # a separator: no text in UTF-8 contains it
_MANY_MARKS = 30  # as in ``words._TOO_MANY_MARKS``


class CodePoints(NamedTuple):
    """Code points of some texts, concatenated."""

    codes: Any  # [n] int32
    rows: Any  # [n] int64, number of the text of each, in ascending order


def decode(texts: Any) -> CodePoints:
    """[R] strings → their code points; bytes that are not UTF-8 become U+FFFD."""
    ragged = tf.strings.unicode_decode(
        texts, "UTF-8", errors="replace", replacement_char=REPLACEMENT, replace_control_characters=False
    )
    return CodePoints(ragged.values, ragged.value_rowids())


def as_utf8(texts: Any) -> Any:
    """Strings, with U+FFFD for bytes that are not UTF-8."""
    return tf.strings.unicode_transcode(
        texts, "UTF-8", "UTF-8", errors="replace", replacement_char=REPLACEMENT, replace_control_characters=False
    )


def encode(points: CodePoints, count: Any) -> Any:
    """Code points → ``count`` strings."""
    return tf.strings.unicode_encode(by_row(points.codes, points.rows, count), "UTF-8")


def by_row(values: Any, rows: Any, count: Any) -> Any:
    """Concatenated values → a ragged tensor of ``count`` rows."""
    return tf.RaggedTensor.from_value_rowids(values, rows, tf.cast(count, tf.int64), validate=False)


def look_up(table: CharacterTable, codes: Any) -> Any:
    """[n] int32: each character's number in the table."""
    block = tf.gather(table.blocks, codes // 256)
    return tf.gather(table.values, block * 256 + codes % 256)


def kept(points: CodePoints, mask: Any) -> CodePoints:
    """The characters for which ``mask`` is true."""
    return CodePoints(tf.boolean_mask(points.codes, mask), tf.boolean_mask(points.rows, mask))


def expanded(points: CodePoints, rule: Expansion) -> CodePoints:
    """Replaces every character by the rule."""
    place = look_up(rule.place, points.codes)
    counts = tf.gather(rule.counts, place)
    source = tf.repeat(tf.range(tf.size(counts)), counts)
    within = tf.range(tf.size(source)) - tf.gather(tf.cumsum(counts, exclusive=True), source)
    place = tf.gather(place, source)
    new = tf.gather(rule.codes, tf.gather(rule.starts, place) + within)
    return CodePoints(tf.where(place > 0, new, tf.gather(points.codes, source)), tf.gather(points.rows, source))


def shifted(values: Any, by: int, rows: Any, outside: int = 0) -> Any:
    """[n]: the value ``by`` characters later (earlier if negative), ``outside`` beyond the ends of a text."""
    size = tf.size(values)
    place = tf.range(size) + by
    inside = tf.clip_by_value(place, 0, tf.maximum(size - 1, 0))
    same = tf.logical_and(tf.equal(place, inside), tf.equal(tf.gather(rows, inside), rows))
    return tf.where(same, tf.gather(values, inside), tf.cast(outside, values.dtype))


def last_place(mask: Any, rows: Any) -> Any:
    """[n] int32: the place of the last character in ``mask`` up to this one, in the same text; -1 if there is none."""
    places = tf.cast(tf.where(mask)[:, 0], tf.int32)
    number = tf.cumsum(tf.cast(mask, tf.int32)) - 1  # of the last one in the mask, over all texts
    place = tf.where(number >= 0, tf.gather(tf.concat([places, [0]], 0), tf.maximum(number, 0)), -1)
    same = tf.equal(tf.gather(rows, tf.maximum(place, 0)), rows)
    return tf.where(tf.logical_and(place >= 0, same), place, -1)


def without_many_marks(points: CodePoints, mark: CharacterTable) -> CodePoints:
    """Keeps at most 30 of the marks in a sequence of marks."""
    is_mark = look_up(mark, points.codes) > 0
    return CodePoints(*tf.cond(tf.reduce_any(is_mark), lambda: _few_marks(points, is_mark), lambda: tuple(points)))


def _few_marks(points: CodePoints, is_mark: Any) -> tuple[Any, Any]:
    size = tf.size(points.codes)
    first = tf.not_equal(shifted(points.rows + 1, -1, points.rows), points.rows + 1)  # of a text
    before = last_place(tf.logical_or(tf.logical_not(is_mark), first), points.rows)
    # A text may begin with a mark, which then counts too.
    run = tf.range(size) - before + tf.cast(tf.gather(is_mark, tf.maximum(before, 0)), tf.int32)
    return tuple(kept(points, tf.logical_or(tf.logical_not(is_mark), run <= _MANY_MARKS)))


def decomposed(points: CodePoints) -> CodePoints:
    """NFD."""
    points = expanded(points, tables.decomposition())
    order = look_up(tables.combining_classes(), points.codes)
    wrong = tf.logical_and(order > 0, shifted(order, -1, points.rows) > order)
    return CodePoints(*tf.cond(tf.reduce_any(wrong), lambda: _in_order(points, order), lambda: tuple(points)))


def _in_order(points: CodePoints, order: Any) -> tuple[Any, Any]:
    """Sorts the marks of each letter by their combining classes."""
    first = tf.not_equal(shifted(points.rows + 1, -1, points.rows), points.rows + 1)
    letter = tf.cumsum(tf.cast(tf.logical_or(tf.equal(order, 0), first), tf.int64))
    places = tf.argsort(letter * 256 + tf.cast(order, tf.int64), stable=True)
    return tf.gather(points.codes, places), tf.gather(points.rows, places)


class Composer(tf.Module):
    """NFC; holds the table of pairs."""

    def __init__(self) -> None:
        super().__init__()
        found = tables.compositions()
        self.active = found.active
        pairs = tf.lookup.KeyValueTensorInitializer(found.pairs, found.whole, tf.int64, tf.int64)
        self.pairs = tf.lookup.StaticHashTable(pairs, -1)
        spec = CodePoints(tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64))
        self._compose = tf.function(self._compose_all, autograph=False, input_signature=spec)  # traced once

    def __call__(self, points: CodePoints) -> CodePoints:
        """Texts in NFC; texts of simple characters are returned unchanged."""
        needed = tf.reduce_any(look_up(self.active, points.codes) > 0)
        return CodePoints(*tf.cond(needed, lambda: self._compose(*points), lambda: tuple(points)))

    def _compose_all(self, codes: Any, rows: Any) -> tuple[Any, Any]:
        """Composes one mark of every letter at a time, from the left (UAX 15, D117)."""
        points = decomposed(CodePoints(codes, rows))
        order = look_up(tables.combining_classes(), points.codes)
        passed = tf.zeros_like(points.codes, tf.bool)
        shapes = [tf.TensorShape([None])] * 4
        codes, rows, _, _, _ = tf.while_loop(
            lambda codes, rows, order, passed, more: more,
            self._step,
            (points.codes, points.rows, order, passed, True),
            shape_invariants=(*shapes, tf.TensorShape([])),
        )
        return codes, rows

    def _step(self, codes: Any, rows: Any, order: Any, passed: Any, more: Any) -> tuple[Any, ...]:
        size = tf.size(codes)
        places = tf.range(size)
        starter = tf.equal(order, 0)
        before = last_place(starter, rows)  # the character itself if it is a starter
        earlier = shifted(before, -1, rows, -1)
        letter = tf.where(starter, earlier, before)  # the letter with which a character may compose, or -1
        there = tf.maximum(letter, 0)
        next_to = tf.equal(letter, places - 1)
        free = tf.logical_or(next_to, shifted(order, -1, rows) < order)
        key = tf.cast(tf.gather(codes, there), tf.int64) * tables.CODES + tf.cast(codes, tf.int64)
        whole = tf.cast(self.pairs.lookup(key), tf.int32)
        fits = (letter >= 0) & free & (whole >= 0) & ~passed
        first = tf.math.unsorted_segment_min(tf.where(fits, places, size), there, size)  # for every letter
        first = tf.gather(first, there)
        goes = fits & tf.equal(first, places) & ~tf.gather(fits, there)
        passed = passed | ((places < first) & (first < size))  # earlier marks do not compose with the new letter
        new = tf.tensor_scatter_nd_update(codes, there[goes][:, None], whole[goes])
        stays = ~goes
        rest = (tf.boolean_mask(values, stays) for values in (new, rows, order, passed))
        return *rest, tf.reduce_any(goes)


def numbers_of(numbers: Mapping[str, int], default: int) -> Any:
    """A hash table of strings; ``default`` is the number of all other strings."""
    known = {text.encode(): number for text, number in numbers.items() if is_utf8(text)} or {APART: default}
    keys, values = tf.constant(list(known), tf.string), tf.constant(list(known.values()), tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default)


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded for a graph: JSON may contain half a character of UTF-16."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
