"""Parts of words: 2 to 5 characters inside a word with a space before and after it, as scikit-learn's ``char_wb``.

Every part is a number whose digits are its characters, so that NumPy can find the parts of many words.

``W`` words, ``G`` parts.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from text_cls.tokens.preprocess import SEP

SHORTEST, LONGEST = 2, 5  # characters of a part
MOST_CHARACTERS = 100  # of a word with the spaces around it; characters after that have no parts
_MOST_DIGITS = 7000  # distinct characters, so that five digits are a number below 2**64


class PartNumbers(NamedTuple):
    """A set of parts, as numbers.

    Attributes:
        alphabet: code points of their characters, sorted; a character's digit is its place, counted from 1.
        numbers: [G] uint64, sorted: shorter parts first, then by code points.
    """

    alphabet: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Self:
        """All parts of some words, without parts with a character that is not among the 7,000 most frequent."""
        points, _ = _code_points(words)
        found, counts = np.unique(points, return_counts=True)
        alphabet = np.sort(found[np.argsort(-counts, kind="stable")[:_MOST_DIGITS]])
        return cls(alphabet, np.unique(_cut(words, alphabet)[1]))

    @classmethod
    def of_parts(cls, parts: Sequence[str]) -> Self:
        """The numbers of these texts; the inverse of ``parts``."""
        points, lengths = _code_points(parts, bare=True)
        alphabet = np.unique(points)
        digits = (np.searchsorted(alphabet, points) + 1).astype(np.uint64)
        numbers, first = np.zeros(len(lengths), np.uint64), np.cumsum(lengths) - lengths
        for place in range(LONGEST):
            there = place < lengths
            numbers[there] = numbers[there] * np.uint64(len(alphabet) + 1) + digits[first[there] + place]
        return cls(alphabet, numbers)

    @property
    def is_whole(self) -> bool:
        """Whether the alphabet is small enough, and the numbers are sorted and unique."""
        return len(self.alphabet) <= _MOST_DIGITS and bool((self.numbers[1:] > self.numbers[:-1]).all())

    def parts(self, places: np.ndarray) -> list[str]:
        """The parts at these places, as texts."""
        rest, base, texts = self.numbers[places], np.uint64(len(self.alphabet) + 1), np.full(len(places), "", object)
        characters = np.array(["", *map(chr, self.alphabet.tolist())], object)  # by digit
        while rest.any():
            rest, digits = np.divmod(rest, base)
            texts = characters[digits.astype(np.int64)] + texts
        return texts.tolist()

    def counts(self, words: Sequence[str]) -> csr_matrix:
        """[W, G] float32: counts of each part in each word."""
        rows, numbers = _cut(words, self.alphabet)
        places = np.minimum(np.searchsorted(self.numbers, numbers), max(0, len(self.numbers) - 1))
        known = self.numbers[places] == numbers if len(self.numbers) else np.zeros(len(numbers), bool)
        rows, places = rows[known], places[known]
        found = csr_matrix((np.ones(len(rows), np.float32), (rows, places)), (len(words), len(self.numbers)))
        found.sum_duplicates()
        return found


def parts_of(word: str) -> Iterator[str]:
    """The parts of one word; <SEP> has none."""
    text = "" if word == SEP else f" {word} "[:MOST_CHARACTERS]
    for size in range(SHORTEST, LONGEST + 1):
        yield from (text[start : start + size] for start in range(len(text) - size + 1))


def _code_points(words: Sequence[str], bare: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The code points of all words with spaces around them (``bare``: without), concatenated, and [W] their counts."""
    texts = words if bare else ["" if word == SEP else f" {word} "[:MOST_CHARACTERS] for word in words]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, np.fromiter(map(len, texts), np.int64, len(texts))


def _cut(words: Sequence[str], alphabet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every part that consists of characters of the alphabet: its word, and its number."""
    points, lengths = _code_points(words)
    if not len(points) or not len(alphabet):
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    places = np.minimum(np.searchsorted(alphabet, points), len(alphabet) - 1)
    digits = np.where(alphabet[places] == points, places + 1, 0).astype(np.uint64)
    word = np.repeat(np.arange(len(words)), lengths)
    rows, numbers, number, base = [], [], digits, np.uint64(len(alphabet) + 1)
    good = digits > 0  # where parts of the current size begin
    for size in range(2, LONGEST + 1):
        count = len(digits) - size + 1
        if count <= 0:
            break
        number, last = number[:count] * base + digits[size - 1 :], digits[size - 1 :]
        good = good[:count] & (last > 0) & (word[:count] == word[size - 1 :])
        rows.append(word[:count][good])
        numbers.append(number[good])
    return np.concatenate([*rows, np.zeros(0, np.int64)]), np.concatenate([*numbers, np.zeros(0, np.uint64)])
