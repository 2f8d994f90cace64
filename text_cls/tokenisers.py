"""The two ways from raw texts to token ids: words of our own vocabulary, and BERT's word pieces.

A tokeniser works in two steps, so that the first, the slow one, can be kept: ``tokenise`` gives a ``Corpus`` that does
not depend on lengths, ``encode`` frames and cuts it.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from files.writing import write_text
from text_cls.config import CleaningConfig
from text_cls.encoding import Encoded, Framing, encode
from text_cls.preprocess import Cleaner, Corpus, Fields, tokenise
from text_cls.vocabulary import Vocabulary
from text_cls.wordpiece import WordPiece, tokenise_pieces


class Tokeniser(Protocol):
    """What a predictor needs of a tokeniser."""

    vocabulary_file: ClassVar[str]  # that ``save`` writes

    @property
    def max_length(self) -> int:
        """Longest text in tokens."""

    @property
    def key(self) -> str:
        """All that its words or pieces depend on besides the texts."""

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        """Raw texts → words or pieces."""

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        """Words or pieces → framed token ids."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes what it needs into the folder and returns what ``load`` needs besides."""


@dataclasses.dataclass(frozen=True)
class WordTokeniser:
    """Cleaned words of a vocabulary built on the training texts."""

    vocabulary_file: ClassVar[str] = "vocabulary.txt"

    cleaner: Cleaner
    vocabulary: Vocabulary
    max_length: int
    truncate: str = "head"

    @property
    def key(self) -> str:
        return self.cleaner.key

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        return tokenise(texts, self.cleaner, workers)

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        ids = self.vocabulary.ids(corpus.lexicon)[corpus.ids] if len(corpus.ids) else corpus.ids
        return encode(ids, corpus.offsets, labels, Framing(self.max_length, self.truncate))

    def save(self, folder: Path) -> dict[str, Any]:
        self.vocabulary.save(folder / self.vocabulary_file)
        return {
            "cleaner": dataclasses.asdict(self.cleaner.config),
            "stop_words": sorted(self.cleaner.stop_words),
            "max_length": self.max_length,
            "truncate": self.truncate,
        }

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> "WordTokeniser":
        stop_words = frozenset(config["stop_words"]) if "stop_words" in config else None
        cleaner = Cleaner(CleaningConfig(**config["cleaner"]), stop_words)
        vocabulary = Vocabulary.load(folder / cls.vocabulary_file)
        return cls(cleaner, vocabulary, config["max_length"], config["truncate"])


@dataclasses.dataclass(frozen=True)
class PieceTokeniser:
    """The word pieces of a published checkpoint, between [CLS] and [SEP]; ``join`` is put between a text's fields."""

    vocabulary_file: ClassVar[str] = "vocab.txt"

    wordpiece: WordPiece
    max_length: int
    truncate: str = "head"
    join: str = " "

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        return tokenise_pieces(texts, self.wordpiece, self.join, workers)

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        framing = Framing(self.max_length, self.truncate, self.wordpiece.cls_id, self.wordpiece.sep_id)
        return encode(corpus.ids, corpus.offsets, labels, framing)

    @cached_property
    def key(self) -> str:
        """What the pieces depend on besides the texts."""
        w = self.wordpiece
        words = hashlib.sha256("\n".join(w.words).encode()).hexdigest()
        return f"pieces 2 {words} {w.lower_case} {w.strip_accents} {w.split_cjk} {self.join!r}"

    def save(self, folder: Path) -> dict[str, Any]:
        write_text(folder / self.vocabulary_file, "\n".join(self.wordpiece.words) + "\n")
        casing = {name: getattr(self.wordpiece, name) for name in ("lower_case", "strip_accents", "split_cjk")}
        return {"casing": casing, "max_length": self.max_length, "truncate": self.truncate, "join": self.join}

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> "PieceTokeniser":
        wordpiece = WordPiece(folder / cls.vocabulary_file, **config["casing"])
        return cls(wordpiece, config["max_length"], config["truncate"], config["join"])
