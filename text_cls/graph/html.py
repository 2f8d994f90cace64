"""``Cleaner``'s step ``strip_html`` in a TensorFlow graph: drops tags, and resolves entities as ``html.unescape`` does.

``R`` texts.
"""

import functools
import html
import html.entities
import re
from typing import Any

import numpy as np
import tensorflow as tf

from text_cls.graph import tables
from text_cls.graph.unicode import APART, REPLACEMENT, look_up

_TAG = r"<[A-Za-z/!][^<>]*>"
_REFERENCE = r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)"
_NOTHING = -tables.CODES
_DIGITS = 8  # larger numbers are no characters


@functools.cache
def _characters() -> tables.CharacterTable:
    """For each number, the difference to the character of its entity; ``_NOTHING`` if it has none."""
    found = np.zeros(tables.CODES, np.int32)
    for code in (*range(0xA0), *range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0), *_last_two()):
        text = html.unescape(f"&#{code};")
        found[code] = ord(text) - code if text else _NOTHING
    return tables.table(found)


def _last_two() -> tuple[int, ...]:
    """The last two code points of every plane, which are no characters."""
    return tuple(plane + last for plane in range(0, tables.CODES, 0x10000) for last in (0xFFFE, 0xFFFF))


@functools.cache
def _lone() -> str:
    """The pattern of an entity without its ampersand, ' #39;', and the character before it; ``re``'s classes in RE2."""
    word, digit = (tables.ranges(tables.members(re.compile(pattern))) for pattern in (r"\w+", r"\d+"))
    return rf"(\A|[^&{word}])#([{digit}]{{2,4}});"


def _any_of(names: list[str]) -> str:
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))


class HtmlStripper(tf.Module):
    """Texts → texts without tags and entities; holds the table of entities."""

    def __init__(self) -> None:
        super().__init__()
        names = html.entities.html5
        known = tf.lookup.KeyValueTensorInitializer(list(names), list(names.values()), tf.string, tf.string)
        self.entities = tf.lookup.StaticHashTable(known, "")
        self.unfinished = _any_of([name for name in names if not name.endswith(";")])
        self.lone = _lone()

    def __call__(self, texts: Any) -> Any:
        """[R] → [R]."""
        texts = tf.strings.regex_replace(texts, _TAG, " ")
        for _ in range(2):  # a match includes the character before it, which may be the end of another match
            texts = tf.strings.regex_replace(texts, self.lone, r"\1&#\2;")
        some = tf.strings.regex_full_match(texts, "(?s).*&.*")
        resolved = tf.cond(tf.reduce_any(some), lambda: self._unescaped(texts), lambda: texts)
        return tf.where(some, tf.strings.regex_replace(resolved, _TAG, " "), texts)

    def _unescaped(self, texts: Any) -> Any:
        """``html.unescape``."""
        marked = tf.strings.regex_replace(texts, _REFERENCE, APART + rb"\1" + APART)
        parts = tf.strings.split(marked, APART)  # [R, (parts)]: every second part is a reference
        odd = tf.equal(tf.ragged.range(parts.row_lengths()).values % 2, 1)
        places = tf.where(odd)
        found = self._resolved(tf.boolean_mask(parts.values, odd))
        return tf.strings.reduce_join(
            parts.with_values(tf.tensor_scatter_nd_update(parts.values, places, found)), axis=-1
        )

    def _resolved(self, references: Any) -> Any:
        """[n] references without their ampersand → their characters."""
        named = self.entities.lookup(references)
        begins = rf"(?s)\A({self.unfinished})(.*)\z"
        begun = tf.strings.regex_full_match(references, rf"(?s)(?:{self.unfinished}).*")
        begin = self.entities.lookup(tf.strings.regex_replace(references, begins, r"\1"))
        begin = begin + tf.strings.regex_replace(references, begins, r"\2")
        otherwise = tf.where(begun, begin, "&" + references)
        numbered = tf.strings.regex_full_match(references, "#([0-9]+|[xX][0-9a-fA-F]+);?")
        of_name = tf.where(tf.equal(named, ""), otherwise, named)
        return tf.where(numbered, _character(tf.where(numbered, references, "#0")), of_name)


def _character(references: Any) -> Any:
    """[n] "#65;" or "#x41;" → the characters."""
    is_hex = tf.strings.regex_full_match(references, "#[xX].*")
    digits = tf.strings.regex_replace(references, r"\A#[xX]?0*([0-9a-fA-F]*);?\z", r"\1")
    digits = tf.where(tf.strings.length(digits) > _DIGITS, "9" * _DIGITS, "0" * _DIGITS + digits)
    digits = tf.io.decode_raw(tf.strings.substr(digits, -_DIGITS, _DIGITS), tf.uint8)
    digits = tf.reshape(digits, [tf.size(references), _DIGITS])  # without references the shape was [0, 0]
    value = tf.cast(digits, tf.int64) - ord("0")
    value = tf.where(value >= ord("a") - ord("0"), value - 39, tf.where(value >= ord("A") - ord("0"), value - 7, value))
    worth = [np.array([base**place for place in range(_DIGITS)][::-1], np.int64) for base in (10, 16)]
    number = tf.reduce_sum(value * tf.where(is_hex[:, None], worth[1], worth[0]), axis=1)
    inside = tf.cast(tf.minimum(number, tables.CODES - 1), tf.int32)
    code = tf.where(number < tables.CODES, inside + look_up(_characters(), inside), REPLACEMENT)
    text = tf.strings.unicode_encode(tf.maximum(code, 0)[:, None], "UTF-8")
    return tf.where(code >= 0, text, "")
