"""Rules for splitting a text into words, by name.

``unicode`` is Unicode's rule (UAX 29, its numbers in brackets) for scripts with spaces, with these changes:

- "." ":" "_" and the marks in numbers do not join words, because reviews write "good.The" and "3.5€". An apostrophe ('
  or ’, kept as ') joins letters and digits. The other marks of the rule join letters only: Catalan's middle dot, the
  hyphenation point, Armenian's abbreviation mark, Hebrew's gershayim (WB6, WB7). " joins Hebrew letters, and an
  apostrophe or a geresh belongs to the Hebrew letter before it (WB7a-c).
- In scripts without spaces, a character is a word: one letter in Han and Hiragana, one grapheme cluster in Thai, Lao,
  Khmer, Myanmar and similar scripts (line breaking class SA). Katakana is separated from other scripts, and sequences
  of it are words (WB13); Hangul is a script with spaces.

Combining marks, ZWJ and ZWNJ belong to the letter before them (WB4). Other format characters are removed (soft hyphens,
directional marks), but a zero-width space separates words. Texts are in NFC, after ``str.casefold`` if case is folded.

``unicode_runs`` keeps sequences of letters of any script together, for subwords. ``0.5`` is the rule of versions up to
0.5, for models that were trained with them.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import regex

from text_cls.config import CleaningConfig

Cut = Callable[[str], list[str]]

_WORD = r"[^\W_]+(?:['’][^\W_]+)*"
_ASCII_PUNCTUATION = r"!-/:-@\[-`{-~"
_PUNCTUATION = rf"[{_ASCII_PUNCTUATION}¡§«·»¿‐-‧‰-⁞、-〃]"
# Texts that have only the characters listed here are split by ``re``, which is several times as fast and gives the same
# words (a test compares every character): Latin, Greek, Cyrillic and Hangul, with the signs of English texts. Missing
# are marks, characters that fold or compose into other classes, and characters in the rules above.
_NOT_SIMPLE = re.compile(
    r"[^\x00-\xac\xae-\xb5\xb8-\u012f\u0131-\u01ef\u01f1-\u024f\u0370-\u0373\u0386\u0388-\u038a\u038c\u038e\u038f"
    r"\u0391-\u03a1\u03a3-\u03af\u03b1-\u03ff\u0400-\u0482\u048a-\u052f\u2010-\u2026\u2030-\u2043\u20ac\u2122\uac00-\ud7a3]"
)
_KEYCAP = r"[0-9#*]\ufe0f?\u20e3"
_FLAG = r"[\U0001f1e6-\U0001f1ff]{2}"  # \X would look back over all earlier flags each time
_KEYCAPS = re.compile(f"({_KEYCAP})")
_VANISHING = regex.compile(r"[\p{Cf}--[\u200b-\u200d\U000e0020-\U000e007f]]+", regex.V1)  # ZWSP, joiners; flags' tags
# The time of NFC grows with the square of the marks on a letter; no script has so many (UAX 15, Stream-Safe Format).
_TOO_MANY_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")

_SINGLE = r"\p{Han}\p{Hiragana}"
_CLUSTER = r"\p{Line_Break=SA}"
_KATAKANA = r"\p{Katakana}\u3031-\u3035\u30fc\uff70\uff9e\uff9f"
_EXTEND = r"\p{M}\u200c\u200d"
_JOINERS = "|".join((
    "'",
    r"׳(?<=\p{Hebrew}.)",
    rf"[·\u055f\u05f4\u2027](?<=[\p{{L}}{_EXTEND}].)(?=\p{{L}})",
    r'"(?<=\p{Hebrew}.)(?=\p{Hebrew})',
))  # fmt: skip

_ANY_PUNCTUATION = rf"[{_ASCII_PUNCTUATION}\p{{P}}]"
_SYMBOL = r"[^\s\x1c-\x1f\p{L}\p{N}\p{M}\p{Z}\p{Cf}\p{Cs}]"


class WordRule(NamedTuple):
    """One rule for words.

    Attributes:
        cutter: steps → function: text → words.
        fold: word → its form in the list of stop words.
    """

    cutter: Callable[[CleaningConfig], Cut]
    fold: Callable[[str], str]


def fold(text: str) -> str:
    """Text in NFC, with case and apostrophes folded, and without characters that are removed."""
    return text.lower() if text.isascii() else _composed(text, True)


def by_unicode(steps: CleaningConfig, runs: bool = False, fast: bool = True) -> Cut:
    """Unicode's rule.

    Args:
        steps: whether case is folded, and whether punctuation and symbols are words.
        runs: whether sequences of letters are words in every script.
        fast: whether simple texts are split by ``re``; the words are the same.
    """
    simple, full = _simple_pattern(steps).findall, _full_pattern(steps, runs).findall
    lower_case, keycap = steps.lower_case, r" \1 " if steps.keep_special else " "

    def cut(text: str) -> list[str]:
        if fast and text.isascii():
            return simple(text.lower() if lower_case else text)
        if fast and not _NOT_SIMPLE.search(text):
            return simple((text.casefold() if lower_case else text).replace("’", "'"))
        text = _composed(text, lower_case)
        return full(_KEYCAPS.sub(keycap, text) if "\u20e3" in text else text)

    return cut


def as_in_0_5(steps: CleaningConfig) -> Cut:
    """The rule of versions up to 0.5, in which combining marks separate words."""
    find, lower_case = _simple_pattern(steps).findall, steps.lower_case
    return lambda text: find((text.lower() if lower_case else text).replace("’", "'"))


def _simple_pattern(steps: CleaningConfig) -> re.Pattern[str]:
    parts = [_WORD]
    if steps.keep_punctuation:
        parts.append(_PUNCTUATION)
    if steps.keep_special:
        parts.append(rf"(?!{_PUNCTUATION})[^\w\s]")
    return re.compile("|".join(parts))


def _full_pattern(steps: CleaningConfig, runs: bool) -> "regex.Pattern[str]":
    letter = r"[\p{L}\p{N}]" if runs else rf"[[\p{{L}}\p{{N}}]--[{_SINGLE}{_CLUSTER}{_KATAKANA}]]"
    run = rf"{letter}[{letter}{_EXTEND}]*"
    parts = [rf"{run}(?:(?:{_JOINERS}){run})*(?:['׳](?<=\p{{Hebrew}}.))?"]
    if not runs:
        single, katakana = rf"[[{_SINGLE}]&&[\p{{L}}\p{{N}}]]", rf"[[{_KATAKANA}]&&\p{{L}}]"
        cluster = rf"(?=[{_CLUSTER}&&[\p{{L}}\p{{N}}]])\X[{_EXTEND}]*"  # \X ends before some vowel signs of Myanmar
        parts += [rf"{single}[{_EXTEND}]*", rf"{katakana}[{katakana}{_EXTEND}]*", cluster]
    if steps.keep_special:
        parts = [_KEYCAP, *parts, rf"{_FLAG}|(?=\p{{P}}\ufe0f|(?!{_ANY_PUNCTUATION}){_SYMBOL})\X"]
    if steps.keep_punctuation:
        parts.append(_ANY_PUNCTUATION)
    return regex.compile("|".join(parts), regex.V1)


def _composed(text: str, lower_case: bool) -> str:
    text = unicodedata.normalize("NFC", _TOO_MANY_MARKS.sub(r"\1", _VANISHING.sub("", text)))
    if lower_case:
        text = unicodedata.normalize("NFC", text.casefold())
    return text.replace("’", "'")


RULES: dict[str, WordRule] = {
    "unicode": WordRule(by_unicode, fold),
    "unicode_runs": WordRule(functools.partial(by_unicode, runs=True), fold),
    "0.5": WordRule(as_in_0_5, str.lower),
}
