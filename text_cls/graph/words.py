"""The rule ``words.by_unicode`` in a TensorFlow graph: texts → words, in every script.

RE2, TensorFlow's regular expressions, uses another version of Unicode, and has neither lookaround nor ``\\X``. So each
character is first replaced by a letter for its kind, which depends on its neighbours too. Then RE2 splits these letters
as ``words`` splits the characters.

``n`` characters of all texts, concatenated; ``R`` texts, ``W`` words.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import regex
import tensorflow as tf

from text_cls.config import CleaningConfig
from text_cls.graph import tables
from text_cls.graph.unicode import (
    CodePoints,
    Composer,
    by_row,
    decode,
    encode,
    expanded,
    kept,
    last_place,
    look_up,
    shifted,
    without_many_marks,
)
from text_cls.tokens import words

# The kinds of characters; each has two letters, and the second means that \X does not end before the character.
(OTHER, LETTER, SINGLE, KATAKANA, CLUSTER, EXTEND, SELECTOR, SIGN, PUNCTUATION, APOSTROPHE, AFTER_HEBREW, BETWEEN,
 SYMBOL, FLAG, KEYCAP, KEYCAP_REST) = range(16)  # fmt: skip
_HEBREW, _ANY_LETTER, _BEFORE_MID = 16, 32, 64
_FIRST = ord("A")  # OTHER's letter
_FIRST_MARK, _SELECTOR_16, _KEYCAP_MARK = 0x300, 0xFE0F, 0x20E3


class Split(NamedTuple):
    """Words of some texts."""

    words: Any  # [W] strings
    rows: Any  # [W] int64


def _letters(*kinds: int, attached: tuple[int, ...] = (0, 1)) -> str:
    """The letters of some kinds, for a character class."""
    return "".join(rf"\x{{{_FIRST + 2 * kind + after:x}}}" for kind in kinds for after in attached)


def _pattern(steps: CleaningConfig) -> str:
    """``words._full_pattern`` in letters of kinds."""
    letter, single, katakana, cluster, flag = map(_letters, (LETTER, SINGLE, KATAKANA, CLUSTER, FLAG))
    extend, tail = _letters(EXTEND, SELECTOR), _letters(AFTER_HEBREW)
    joiner, attached = _letters(APOSTROPHE, AFTER_HEBREW, BETWEEN), f"[{_letters(*range(16), attached=(1,))}]"
    marks = (PUNCTUATION, APOSTROPHE, AFTER_HEBREW, BETWEEN)
    run = f"[{letter}][{letter}{extend}]*"
    parts = [f"{run}(?:[{joiner}]{run})*[{tail}]?", f"[{single}][{extend}]*", f"[{katakana}][{katakana}{extend}]*"]
    parts.append(f"[{cluster}]{attached}*[{extend}]*")
    if steps.keep_special:
        shown = f"(?:[{_letters(*marks)}][{_letters(SELECTOR)}]|[{_letters(SYMBOL, FLAG)}])"
        parts = [f"[{_letters(KEYCAP)}][{_letters(KEYCAP_REST)}]+", *parts, f"[{flag}]{{2}}", f"{shown}{attached}*"]
    if steps.keep_punctuation:
        parts.append(f"[{_letters(SIGN, *marks)}]")
    return f"({'|'.join(parts)})|(.)"


@functools.cache
def _kinds(runs: bool = False) -> np.ndarray:
    """[CODES] the kind of every character, as far as it does not depend on its neighbours."""
    apart = "" if runs else rf"--[{words._SINGLE}{words._CLUSTER}{words._KATAKANA}]"
    letter = rf"[[\p{{L}}\p{{N}}]{apart}]"
    found = np.full(tables.CODES, OTHER, np.int32)
    for kind, pattern in (  # later kinds override earlier ones
        (SYMBOL, rf"(?!{words._ANY_PUNCTUATION}){words._SYMBOL}"),
        (FLAG, r"[\U0001f1e6-\U0001f1ff]"),
        (SIGN, words._ANY_PUNCTUATION),
        (PUNCTUATION, r"\p{P}"),
        (EXTEND, f"[{words._EXTEND}]"),
        (CLUSTER, rf"[[{words._CLUSTER}]&&[\p{{L}}\p{{N}}]]"),
        (KATAKANA, rf"[[{words._KATAKANA}]&&\p{{L}}]"),
        (SINGLE, rf"[[{words._SINGLE}]&&[\p{{L}}\p{{N}}]]"),
        (LETTER, letter),
    ):
        found[tables.members(pattern)] = kind
    found[_SELECTOR_16] = SELECTOR
    return found


@functools.cache
def _about(runs: bool) -> tables.CharacterTable:
    """The kind of every character, with higher bits for its effect on its neighbours."""
    found = _kinds(runs).copy()
    for bit, pattern in (
        (_HEBREW, r"\p{Hebrew}"),
        (_ANY_LETTER, r"\p{L}"),
        (_BEFORE_MID, rf"[\p{{L}}{words._EXTEND}]"),
    ):
        found[tables.members(pattern)] |= bit
    return tables.table(found)


class Cutter(tf.Module):
    """Texts without HTML → words, before stop words.

    Args:
        steps: see ``words.by_unicode``.
        composer: NFC.
        runs: whether sequences of letters are words in every script.
    """

    def __init__(self, steps: CleaningConfig, composer: Composer, runs: bool = False) -> None:
        super().__init__()
        self.steps, self.composer, self.pattern = dataclasses.replace(steps), composer, _pattern(steps)
        self.about = _about(runs)
        self.vanishing, self.mark = map(tables.table_of, (words._VANISHING.pattern, r"\p{M}"))
        self.clusters = _Clusters()

    def __call__(self, texts: Any) -> Split:
        """[R] → the words of each."""
        points = self.composed(decode(texts), self.steps.lower_case)
        return self._words(points, tf.size(texts))

    def folded(self, found: Any) -> Any:
        """[W] words → their form in the table of stop words; as ``words.fold``."""
        return encode(self.composed(decode(found), True), tf.size(found))

    def composed(self, points: CodePoints, lower_case: bool) -> CodePoints:
        """As ``words._composed``."""
        points = kept(points, tf.equal(look_up(self.vanishing, points.codes), 0))
        points = self.composer(without_many_marks(points, self.mark))
        if lower_case:
            points = self.composer(expanded(points, tables.case_folding()))
        return points._replace(codes=tf.where(tf.equal(points.codes, ord("’")), ord("'"), points.codes))

    def _words(self, points: CodePoints, count: Any) -> Split:
        kinds, attached = self._in_context(points)
        letters = encode(points._replace(codes=_FIRST + 2 * kinds + tf.cast(attached, tf.int32)), count)
        cut = decode(tf.strings.regex_replace(letters, self.pattern, r"<\1>\2")).codes
        opens = tf.cumsum(tf.cast(tf.equal(cut, ord("<")), tf.int32))
        closes = tf.cumsum(tf.cast(tf.equal(cut, ord(">")), tf.int32))
        real = cut >= _FIRST
        word, inside = tf.boolean_mask(opens, real), tf.boolean_mask(opens > closes, real)
        word, inner = tf.boolean_mask(word, inside), kept(points, inside)
        first = tf.not_equal(word, tf.concat([[-1], word], 0)[:-1])
        number = tf.cast(tf.cumsum(tf.cast(first, tf.int32)) - 1, tf.int64)
        total = tf.reduce_sum(tf.cast(first, tf.int64))
        found = tf.strings.unicode_encode(by_row(inner.codes, number, total), "UTF-8")
        return Split(found, tf.boolean_mask(inner.rows, first))

    def _in_context(self, points: CodePoints) -> tuple[Any, Any]:
        """[n] the kinds of characters in their context, and whether \\X continues before them."""
        codes, rows = points
        keycap, rest = _keycaps(points)
        apart = keycap | rest  # spaces go around them
        about = tf.where(apart, OTHER, look_up(self.about, codes))
        kinds, before, behind = about % _HEBREW, shifted(about, -1, rows), shifted(about, 1, rows)
        after_hebrew, before_hebrew = (tf.bitwise.bitwise_and(near, _HEBREW) > 0 for near in (before, behind))
        apostrophe = tf.equal(codes, ord("'")) & ~apart
        tail = after_hebrew & (apostrophe | tf.equal(codes, ord("׳")))
        mid = tf.bitwise.bitwise_and(before, _BEFORE_MID) > 0
        mid = mid & (tf.bitwise.bitwise_and(behind, _ANY_LETTER) > 0)
        mid = mid & _is_any(codes, "·\u055f\u05f4\u2027") | after_hebrew & before_hebrew & _is_any(codes, '"')
        kinds = tf.where(apostrophe, APOSTROPHE, tf.where(mid, BETWEEN, kinds))
        kinds = tf.where(tail, AFTER_HEBREW, kinds)
        if self.steps.keep_special:
            kinds = tf.where(keycap, KEYCAP, tf.where(rest, KEYCAP_REST, kinds))
        none = tf.zeros_like(apart)  # no cluster consists only of characters below U+0300
        return kinds, tf.cond(
            tf.reduce_any(codes >= _FIRST_MARK), lambda: self.clusters(points, apart) & ~apart, lambda: none
        )


def _is_any(codes: Any, characters: str) -> Any:
    found = tf.equal(codes, ord(characters[0]))
    for character in characters[1:]:
        found = found | tf.equal(codes, ord(character))
    return found


def _keycaps(points: CodePoints) -> tuple[Any, Any]:
    """[n] whether a keycap begins here, and whether this is its rest; as ``words._KEYCAP``."""
    codes, rows = points
    digit = (codes >= ord("0")) & (codes <= ord("9")) | _is_any(codes, "#*")
    one, two = (shifted(codes, by, rows) for by in (1, 2))
    long = digit & tf.equal(one, _SELECTOR_16) & tf.equal(two, _KEYCAP_MARK)
    begins = tf.cast(digit & tf.equal(one, _KEYCAP_MARK) | long, tf.int32)
    rest = shifted(begins, -1, rows) + shifted(tf.cast(long, tf.int32), -2, rows)
    return begins > 0, rest > 0


def _is_cluster(text: str) -> bool:
    return regex.fullmatch(r"\X", text) is not None


class _Clusters:
    """Where a grapheme cluster continues, by the rules of UAX 29 named below; Hangul and flags are not needed."""

    def __init__(self) -> None:
        def of(name: str) -> tables.CharacterTable:
            return tables.table_of(rf"\p{{{name}}}")

        self.extend, self.joiner, self.spacing = (of(f"GCB={name}") for name in ("Extend", "ZWJ", "SpacingMark"))
        self.control = tables.table_of(r"[\p{GCB=Control}\p{GCB=CR}\p{GCB=LF}]")
        self.picture = of("Extended_Pictographic")
        self.links = _is_cluster("क्ष")  # whether regex has GB9c, which is from Unicode 15.1
        self.after_any = _is_cluster("a्ष")  # GB9c needs a consonant before the linker; regex 2026.11 does not
        if self.links:
            self.consonant, self.linker, self.indic = (of(f"InCB={name}") for name in ("Consonant", "Linker", "Extend"))

    def __call__(self, points: CodePoints, apart: Any) -> Any:
        """[n] whether a cluster continues; characters in ``apart`` count as if they had spaces around them."""
        codes, rows = points

        def has(table: tables.CharacterTable) -> Any:
            return (look_up(table, codes) > 0) & ~apart

        def before(mask: Any) -> Any:
            return shifted(tf.cast(mask, tf.int32), -1, rows) > 0

        def at(place: Any, mask: Any) -> Any:
            return (place >= 0) & tf.gather(mask, tf.maximum(place, 0))

        extend, joiner = has(self.extend), has(self.joiner)
        follows = tf.equal(shifted(tf.ones_like(codes), -1, rows), 1)
        goes_on = (extend | joiner | has(self.spacing)) & follows & ~before(has(self.control))  # GB4, GB9, GB9a
        picture = has(self.picture)
        of_picture = at(last_place(~extend, rows), picture)  # ExtPict Extend*
        sequence = before(joiner) & (shifted(tf.cast(of_picture, tf.int32), -2, rows) > 0)
        goes_on = goes_on | picture & sequence  # GB11
        if not self.links:
            return goes_on
        consonant, linker = has(self.consonant), has(self.linker)
        base = last_place(~(linker | has(self.indic)), rows)
        linked = last_place(linker, rows) > base
        return goes_on | consonant & before(linked if self.after_any else linked & at(base, consonant))
