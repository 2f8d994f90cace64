"""Parts of words: 2 to 5 characters inside a word with a space before and after it, as scikit-learn's ``char_wb``.

Every part is a number, with its characters as digits, so that the parts of many words are cut and found by NumPy.

``W`` words, ``G`` parts.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from text_cls.preprocess import SEP

SHORTEST, LONGEST = 2, 5  # characters of a part
MOST_CHARACTERS = 100  # of a word and the spaces around it; what follows has no parts
_MOST_DIGITS = 7000  # different characters: five of them make a number below 2**64


class PartNumbers(NamedTuple):
    """Some parts, and what finds them.

    Attributes:
        alphabet: code points of their characters, sorted; a character's digit is its place, from 1 on.
        numbers: [G] uint64, sorted: shorter parts first, then by code points.
    """

    alphabet: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Self:
        """All parts of some words; those with a character beyond the 7,000 most frequent ones are left out."""
        points, _ = _code_points(words)
        found, counts = np.unique(points, return_counts=True)
        alphabet = np.sort(found[np.argsort(-counts, kind="stable")[:_MOST_DIGITS]])
        return cls(alphabet, np.unique(_cut(words, alphabet)[1]))

    @classmethod
    def of_parts(cls, parts: Sequence[str]) -> Self:
        """These parts, which ``parts`` gave."""
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
        """Whether the numbers hold all characters, and are in order, none twice."""
        return len(self.alphabet) <= _MOST_DIGITS and bool((self.numbers[1:] > self.numbers[:-1]).all())

    def parts(self, places: np.ndarray) -> list[str]:
        """Those at some places, as texts."""
        rest, base, texts = self.numbers[places], np.uint64(len(self.alphabet) + 1), np.full(len(places), "", object)
        characters = np.array(["", *map(chr, self.alphabet.tolist())], object)  # by digit
        while rest.any():
            rest, digits = np.divmod(rest, base)
            texts = characters[digits.astype(np.int64)] + texts
        return texts.tolist()

    def counts(self, words: Sequence[str]) -> csr_matrix:
        """[W, G] float32: how often each word has each part."""
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
    """Of all words with spaces around them, or ``bare``, end to end; and [W] how many each has."""
    texts = words if bare else ["" if word == SEP else f" {word} "[:MOST_CHARACTERS] for word in words]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, np.fromiter(map(len, texts), np.int64, len(texts))


def _cut(words: Sequence[str], alphabet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every part that has characters of the alphabet alone: the word it is in, and its number."""
    points, lengths = _code_points(words)
    if not len(points) or not len(alphabet):
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    places = np.minimum(np.searchsorted(alphabet, points), len(alphabet) - 1)
    digits = np.where(alphabet[places] == points, places + 1, 0).astype(np.uint64)
    word = np.repeat(np.arange(len(words)), lengths)
    rows, numbers, number, base = [], [], digits, np.uint64(len(alphabet) + 1)
    good = digits > 0  # where parts of the present size begin
    for size in range(2, LONGEST + 1):
        count = len(digits) - size + 1
        if count <= 0:
            break
        number, last = number[:count] * base + digits[size - 1 :], digits[size - 1 :]
        good = good[:count] & (last > 0) & (word[:count] == word[size - 1 :])
        rows.append(word[:count][good])
        numbers.append(number[good])
    return np.concatenate([*rows, np.zeros(0, np.int64)]), np.concatenate([*numbers, np.zeros(0, np.uint64)])
