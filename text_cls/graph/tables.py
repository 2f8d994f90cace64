"""Python's properties of all characters, as tables that a TensorFlow graph can hold; made with NumPy only.

A graph has no ``unicodedata`` and no ``re``, and TensorFlow's own character classes are from another version of
Unicode. So every class and every mapping of characters in this folder is one of these tables, made by calling Python
on all characters.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import regex

CODES = 0x110000
_BLOCK = 256  # characters; equal blocks of a table, which are most, are kept once
_SURROGATES = range(0xD800, 0xE000)  # no text in UTF-8 contains one


class CharacterTable(NamedTuple):
    """A number for every character: ``values[256 * blocks[code // 256] + code % 256]``."""

    blocks: np.ndarray  # [4352] int32
    values: np.ndarray  # [256 × different blocks] int32


class Expansion(NamedTuple):
    """A replacement for every character: any number of characters, or itself.

    Attributes:
        place: 0 for a character that is not replaced, otherwise the number of its replacement.
        starts, counts: by number, the start of the replacement in ``codes``, and its length.
        codes: the characters of all replacements, concatenated.
    """

    place: CharacterTable
    starts: np.ndarray
    counts: np.ndarray
    codes: np.ndarray


def table(values: np.ndarray) -> CharacterTable:
    """A table of ``CODES`` numbers."""
    known: dict[bytes, int] = {}
    parts = values.astype(np.int32).reshape(-1, _BLOCK)
    blocks = np.array([known.setdefault(part.tobytes(), len(known)) for part in parts], np.int32)
    return CharacterTable(blocks, np.frombuffer(b"".join(known), np.int32))


def expansion(rule: Callable[[str], str]) -> Expansion:
    """A table of ``rule``, which is applied to each character alone."""
    found: dict[str, int] = {}
    place = np.zeros(CODES, np.int32)
    for code in _assigned():
        character = chr(code)
        new = rule(character)
        if new != character:
            place[code] = found.setdefault(new, len(found) + 1)
    counts = np.array([1, *map(len, found)], np.int32)
    codes = np.array([0, *(ord(c) for text in found for c in text)], np.int32)
    return Expansion(table(place), (np.cumsum(counts) - counts).astype(np.int32), counts, codes)


@functools.cache
def _assigned() -> tuple[int, ...]:
    """All characters, without those of planes that Unicode does not use, which no rule changes."""
    planes = (range(first, first + 0x10000) for first in range(0, CODES, 0x10000))
    begun = (plane for plane in planes if any(unicodedata.category(chr(code)) != "Cn" for code in plane))
    return tuple(code for plane in begun for code in plane if code not in _SURROGATES)


@functools.cache
def _every() -> str:
    return "".join(chr(code) for code in range(CODES) if code not in _SURROGATES)


def members(pattern: "str | re.Pattern[str]") -> np.ndarray:
    """[CODES] bool: the characters that a pattern matches: a pattern of ``regex`` for one character, or of ``re`` for a
    sequence of them."""
    runs: Any = regex.compile(f"(?:{pattern})+", regex.V1) if isinstance(pattern, str) else pattern
    found = np.zeros(CODES, bool)
    for match in runs.finditer(_every()):
        first, last = ord(match[0][0]), ord(match[0][-1])
        found[first : last + 1] = True
    found[_SURROGATES.start : _SURROGATES.stop] = False
    return found


@functools.cache
def table_of(pattern: str) -> CharacterTable:
    """1 for the characters that a pattern of ``regex`` matches, 0 for the others."""
    return table(members(pattern))


def ranges(belongs: np.ndarray) -> str:
    """The inner part of an RE2 character class with these members."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], belongs.astype(np.int8), [0]])))
    return "".join(rf"\x{{{first:x}}}-\x{{{end - 1:x}}}" for first, end in edges.reshape(-1, 2).tolist())


@functools.cache
def decomposition() -> Expansion:
    """Full canonical decompositions."""
    return expansion(lambda c: unicodedata.normalize("NFD", c))


@functools.cache
def combining_classes() -> CharacterTable:
    """The canonical combining class of every character."""
    return table(np.array([unicodedata.combining(chr(code)) for code in range(CODES)], np.int32))


class Compositions(NamedTuple):
    """Pairs of characters that NFC composes: ``first * CODES + second`` → ``whole``.

    Attributes:
        pairs, whole: [n] int64.
        active: 1 for every character that NFC may change; it does not change a text without such characters.
    """

    pairs: np.ndarray
    whole: np.ndarray
    active: CharacterTable


@functools.cache
def compositions() -> Compositions:
    """All compositions of Unicode, including Hangul's."""
    pairs, whole, active = [], [], np.zeros(CODES, np.int32)
    for code in _assigned():
        character = chr(code)
        active[code] = unicodedata.combining(character) > 0
        if unicodedata.normalize("NFD", character) == character:
            continue
        if unicodedata.normalize("NFC", character) != character:
            active[code] = 1
            continue
        first, second = _parts(code)
        pairs.append(first * CODES + second)
        whole.append(code)
        active[second] = 1
    return Compositions(np.array(pairs, np.int64), np.array(whole, np.int64), table(active))


def _parts(code: int) -> tuple[int, int]:
    """The two parts of a composed character."""
    hangul = code - 0xAC00
    if 0 <= hangul < 11172:
        if hangul % 28:
            return code - hangul % 28, 0x11A7 + hangul % 28
        return 0x1100 + hangul // 588, 0x1161 + hangul % 588 // 28
    first, second = (int(part, 16) for part in unicodedata.decomposition(chr(code)).split())
    return first, second


@functools.cache
def case_folding() -> Expansion:
    """``str.casefold``, which maps each character independently."""
    return expansion(str.casefold)


@functools.cache
def spaces() -> CharacterTable:
    """1 for the characters at which ``str.split`` splits."""
    return table(np.array([chr(code).isspace() for code in range(CODES)], np.int32))
