"""Raw texts → token ids: words or subwords of our own vocabulary, or pieces of published encoders.

A tokeniser has two steps, so that the result of the slow step can be cached: ``tokenise`` returns a ``Corpus`` that
does not depend on lengths, and ``encode`` adds special tokens and truncates.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from text_cls.config import CleaningConfig, VocabularyConfig
from text_cls.data.fields import Fields
from text_cls.tokens.encoding import AnyFraming, Encoded, Framing, encode, unknown_share
from text_cls.tokens.length_config import MOST_WINDOWS, WINDOWS, LengthConfig
from text_cls.tokens.pairs import PairFraming, tokenise_pairs
from text_cls.tokens.pieces import CUTTERS, Cutter, tokenise_pieces
from text_cls.tokens.preprocess import Cleaner, Corpus, tokenise
from text_cls.tokens.subwords import Subwords, expanded, library
from text_cls.tokens.vocabulary import SEGMENT, UNK_ID, Vocabulary

MANY_UNKNOWN = 0.1  # above this share of unknown validation tokens, a run has a note


def _lengths_of(tokeniser: "_CleanedTokeniser | PieceTokeniser") -> dict[str, Any]:
    """The choices of lengths, for an artefact."""
    return {name: getattr(tokeniser, name) for name in _length_names(tokeniser.truncate)}


def _lengths_in(config: dict[str, Any]) -> dict[str, Any]:
    """The choices of lengths in an artefact, as arguments of a tokeniser."""
    return {name: config[name] for name in _length_names(config["truncate"])}


def _length_names(truncate: str) -> tuple[str, ...]:
    """The names of the choices of lengths; those of windows only if texts are cut into windows."""
    return ("max_length", "truncate", "stride", "max_windows") if truncate == WINDOWS else ("max_length", "truncate")


class Tokeniser(Protocol):
    """The predictor's view of a tokeniser."""

    @property
    def vocabulary_file(self) -> str:
        """The name of the file that ``save`` writes."""

    @property
    def max_length(self) -> int:
        """Largest number of tokens of a text."""

    @property
    def size(self) -> int:
        """Number of token ids: they are 0 to ``size`` - 1."""

    @property
    def key(self) -> str:
        """A key of everything that words or pieces depend on besides the texts."""

    @property
    def framing(self) -> AnyFraming:
        """The special tokens around a text, and the treatment of long texts."""

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        """Raw texts → words or pieces."""

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        """Words or pieces → framed token ids."""

    def notes(self, validation: Encoded) -> tuple[str, ...]:
        """Notes for readers of the result, about the tokens of the validation texts."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the vocabulary into the folder, and returns the other arguments of ``load``."""


@dataclasses.dataclass(frozen=True)
class _CleanedTokeniser:
    """The common part of tokenisers of cleaned words."""

    cleaner: Cleaner
    vocabulary: Vocabulary | Subwords
    max_length: int
    truncate: str = "head"
    stride: int = 0
    max_windows: int = MOST_WINDOWS

    kind: ClassVar[str]
    vocabulary_type: ClassVar[type[Vocabulary] | type[Subwords]]
    vocabulary_file: ClassVar[str]
    rule: ClassVar[str]  # for words; see ``words.RULES``

    @classmethod
    def build(cls, corpus: Corpus, cleaner: Cleaner, config: VocabularyConfig, length: LengthConfig) -> Self:
        """Builds the vocabulary from a cleaned corpus; raises UserError if it is empty, or its file is too large."""
        vocabulary = cls.vocabulary_type.build(corpus, config.vocabulary_size, config.min_count)
        return cls(cleaner, vocabulary, **dataclasses.asdict(length))

    @classmethod
    def cleaner_of(cls, config: CleaningConfig) -> Cleaner:
        """The cleaner of the texts, before the tokeniser is built; raises UserError if a library is missing."""
        return Cleaner(config, rule=cls.rule)

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> Self:
        """Reads the file of ``save``; versions up to 0.5 had one rule."""
        stop_words = frozenset(config["stop_words"]) if "stop_words" in config else None
        cleaner = Cleaner(CleaningConfig(**config["cleaner"]), stop_words, config.get("rule", "0.5"))
        vocabulary = cls.vocabulary_type.load(folder / cls.vocabulary_file)
        return cls(cleaner, vocabulary, **_lengths_in(config))

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        return tokenise(texts, self.cleaner, workers)

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    @property
    def framing(self) -> Framing:
        """<CLS> before a text, no token after it."""
        return Framing(self.max_length, self.truncate, stride=self.stride, max_windows=self.max_windows)

    def save(self, folder: Path) -> dict[str, Any]:
        self.vocabulary.save(folder / self.vocabulary_file)
        return {
            "kind": self.kind,
            "rule": self.cleaner.rule,
            "cleaner": dataclasses.asdict(self.cleaner.config),
            "stop_words": sorted(self.cleaner.stop_words),
            **_lengths_of(self),
        }


@dataclasses.dataclass(frozen=True)
class WordTokeniser(_CleanedTokeniser):
    """Cleaned words of a vocabulary built on the training texts."""

    kind: ClassVar[str] = "words"
    vocabulary_type: ClassVar = Vocabulary
    vocabulary_file: ClassVar[str] = "vocabulary.txt"
    rule: ClassVar[str] = "unicode"

    vocabulary: Vocabulary

    @property
    def key(self) -> str:
        return self.cleaner.key

    def notes(self, validation: Encoded) -> tuple[str, ...]:
        share = unknown_share(validation, UNK_ID, framing_tokens=1)
        if share <= MANY_UNKNOWN:
            return ()
        return (
            f"{share:.0%} of the validation tokens are <UNK>, words that the model does not know: its vocabulary has "
            f"{len(self.vocabulary):,} entries; raise --vocabulary_size, lower --min_count, or use "
            "--tokeniser=subwords, which reads every word",
        )

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        ids = self.vocabulary.ids(corpus.lexicon)[corpus.ids] if len(corpus.ids) else corpus.ids
        return encode(ids, corpus.offsets, labels, self.framing)


@dataclasses.dataclass(frozen=True)
class SubwordTokeniser(_CleanedTokeniser):
    """Subwords of cleaned words, trained on the training texts."""

    kind: ClassVar[str] = "subwords"
    vocabulary_type: ClassVar = Subwords
    vocabulary_file: ClassVar[str] = "tokenizer.json"
    rule: ClassVar[str] = "unicode_runs"

    vocabulary: Subwords

    @classmethod
    def cleaner_of(cls, config: CleaningConfig) -> Cleaner:
        library()  # before the data are read
        return super().cleaner_of(config)

    @property
    def key(self) -> str:
        return f"subwords {self.vocabulary.key} {self.cleaner.key}"

    def notes(self, validation: Encoded) -> tuple[str, ...]:
        return ()  # nothing is unknown

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        ids, offsets = expanded(corpus, self.vocabulary.pieces(corpus.lexicon))
        return encode(ids, offsets, labels, self.framing)


TOKENISERS: dict[str, type[WordTokeniser] | type[SubwordTokeniser]] = {
    tokeniser.kind: tokeniser for tokeniser in (WordTokeniser, SubwordTokeniser)
}


def load_own(folder: Path, config: dict[str, Any]) -> WordTokeniser | SubwordTokeniser:
    """Loads one of ``TOKENISERS``; versions up to 0.5 only had words."""
    return TOKENISERS[config.get("kind", "words")].load(folder, config)


@dataclasses.dataclass(frozen=True)
class PieceTokeniser:
    """The pieces of a published checkpoint, between its [CLS] and [SEP].

    Attributes:
        cutter: cuts a text into pieces.
        join: the text between two fields.
        pairs: whether a text has two fields, each a segment (``pairs.py``); ``join`` is not used then.
    """

    cutter: Cutter
    max_length: int
    truncate: str = "head"
    join: str = " "
    pairs: bool = False
    stride: int = 0
    max_windows: int = MOST_WINDOWS

    @classmethod
    def of(
        cls, cutter: Cutter, max_length: int, truncate: str, join_fields: str, stride: int = 0,
        max_windows: int = MOST_WINDOWS,
    ) -> "PieceTokeniser":  # fmt: skip
        """A tokeniser with ``join`` and ``pairs`` from ``DataConfig.join_fields``."""
        join = " " if join_fields == "space" else cutter.separator
        return cls(cutter, max_length, truncate, join, join_fields == "pair", stride, max_windows)

    @property
    def vocabulary_file(self) -> str:
        return self.cutter.file

    @property
    def size(self) -> int:
        return len(self.cutter)

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        if self.pairs:
            return tokenise_pairs(texts, self.cutter, workers)
        return tokenise_pieces(texts, self.cutter, self.join, workers)

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        return encode(corpus.ids, corpus.offsets, labels, self.framing)

    @property
    def framing(self) -> AnyFraming:
        """The encoder's special tokens around a text, or around and between two texts."""
        cls_id, sep_id = self.cutter.cls_id, self.cutter.sep_id
        if self.pairs:
            return PairFraming(self.max_length, cls_id, sep_id, self.size, self.cutter.middle, self.cutter.segments)
        return Framing(self.max_length, self.truncate, cls_id, sep_id, self.stride, self.max_windows)

    @cached_property
    def key(self) -> str:
        """A key of everything that the pieces depend on besides the texts."""
        return f"pieces 2 {self.cutter.key} {'pairs' if self.pairs else repr(self.join)}"

    def notes(self, validation: Encoded) -> tuple[str, ...]:
        if self.cutter.unk_id is None:
            return ()
        pieces = dataclasses.replace(validation, ids=validation.ids % SEGMENT)
        share = unknown_share(pieces, self.cutter.unk_id, framing_tokens=2 + self.pairs * self.cutter.middle)
        if share <= MANY_UNKNOWN:
            return ()
        return (
            f"{share:.0%} of the validation tokens are {self.cutter.words[self.cutter.unk_id]}: the encoder does not "
            "know this script or language; use "
            "one that was trained on it (--encoder), or train_text --tokeniser=subwords",
        )

    def save(self, folder: Path) -> dict[str, Any]:
        cutter = {"cutter": self.cutter.kind, "casing": self.cutter.save(folder)}
        return cutter | _lengths_of(self) | {"join": self.join, "pairs": self.pairs}

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> "PieceTokeniser":
        cutter = CUTTERS[config.get("cutter", "wordpiece")].load(folder, config["casing"])
        return cls(cutter, **_lengths_in(config), join=config["join"], pairs=config.get("pairs", False))
