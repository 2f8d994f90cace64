"""Words ↔ ids, with the special tokens first."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from files.documents import MOST_BYTES, read_text
from files.errors import UserError
from files.writing import write_text
from text_cls.tokens.preprocess import SEP, Corpus

SPECIAL = ("<PAD>", "<UNK>", "<CLS>", SEP, "<MASK>")
PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
SEGMENT = 2**24  # larger than any vocabulary; it is added to the ids of a second segment (``pairs.py``)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows; a word's id is its place."""

    words: tuple[str, ...]

    @classmethod
    def build(cls, corpus: Corpus, size: int, min_count: int = 1) -> "Vocabulary":
        """The most frequent words of ``corpus``: at most ``size`` entries with the special tokens, ties by alphabet.

        Raises:
            UserError: there are no words, or their file would be too large to be read.
        """
        counts = np.bincount(corpus.ids, minlength=len(corpus.lexicon))
        ranked = sorted(
            (-int(count), word) for word, count in zip(corpus.lexicon, counts, strict=True) if count >= min_count
        )
        words = [word for _, word in ranked if word not in SPECIAL]
        if not words:
            raise UserError(
                f"the vocabulary is empty: none of the {len(counts):,} different words of the training texts appears "
                f"{min_count} times; lower --min_count, or use --tokeniser=subwords"
            )
        vocabulary = cls(SPECIAL + tuple(words[: max(0, size - len(SPECIAL))]))
        check_size(vocabulary._text())
        return vocabulary

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    def ids(self, words: Iterable[str]) -> np.ndarray:
        """int32 ids; words outside the vocabulary become <UNK>."""
        return np.array([self._places.get(word, UNK_ID) for word in words], np.int32)

    def save(self, path: Path) -> None:
        """Writes one word on each line."""
        write_text(path, self._text())

    def _text(self) -> str:
        return "\n".join(self.words) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads what ``save`` wrote.

        Raises:
            UserError: the file is missing or damaged, or no vocabulary of ours.
        """
        words = tuple(read_text(path).removesuffix("\n").split("\n"))
        if words[: len(SPECIAL)] != SPECIAL:
            raise UserError(f"{path}: does not begin with {' '.join(SPECIAL)}; it is no vocabulary of ours")
        if "" in words:
            raise UserError(f"{path}: damaged: line {words.index('') + 1} is empty")
        if len(set(words)) < len(words):
            raise UserError(f"{path}: damaged: {len(words) - len(set(words))} words appear twice")
        return cls(words)


def check_size(text: str) -> None:
    """Checks the size of a vocabulary before training, because a model with too large a file could not be loaded.

    Raises:
        UserError: the file would be too large to be read.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise UserError(
            f"the vocabulary takes {size / 2**20:,.0f} MiB, and {MOST_BYTES / 2**20:,.0f} are read: lower "
            "--vocabulary_size, or raise --min_count"
        )
