"""The ways from raw texts to token ids: words or subwords of our own vocabulary, and published encoders' pieces.

A tokeniser works in two steps, so that the first, the slow one, can be kept: ``tokenise`` gives a ``Corpus`` that does
not depend on lengths, ``encode`` frames and cuts it.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from text_cls.config import CleaningConfig, VocabularyConfig
from text_cls.encoding import AnyFraming, Encoded, Framing, encode, unknown_share
from text_cls.length_config import MOST_WINDOWS, WINDOWS, LengthConfig
from text_cls.pairs import PairFraming, tokenise_pairs
from text_cls.pieces import CUTTERS, Cutter, tokenise_pieces
from text_cls.preprocess import Cleaner, Corpus, Fields, tokenise
from text_cls.subwords import Subwords, expanded, library
from text_cls.vocabulary import SEGMENT, UNK_ID, Vocabulary

MANY_UNKNOWN = 0.1  # share of the validation tokens from which on a run says so


def _lengths_of(tokeniser: "_CleanedTokeniser | PieceTokeniser") -> dict[str, Any]:
    """What an artefact says of how long texts are read."""
    return {name: getattr(tokeniser, name) for name in _length_names(tokeniser.truncate)}


def _lengths_in(config: dict[str, Any]) -> dict[str, Any]:
    """The same, read back: arguments of a tokeniser."""
    return {name: config[name] for name in _length_names(config["truncate"])}


def _length_names(truncate: str) -> tuple[str, ...]:
    """Of windows only where there may be any."""
    return ("max_length", "truncate", "stride", "max_windows") if truncate == WINDOWS else ("max_length", "truncate")


class Tokeniser(Protocol):
    """What a predictor needs of a tokeniser."""

    @property
    def vocabulary_file(self) -> str:
        """That ``save`` writes."""

    @property
    def max_length(self) -> int:
        """Longest text in tokens."""

    @property
    def size(self) -> int:
        """Token ids that it may give: 0 to ``size`` - 1."""

    @property
    def key(self) -> str:
        """All that its words or pieces depend on besides the texts."""

    @property
    def framing(self) -> AnyFraming:
        """What is put around a text, and how a long one is cut."""

    def tokenise(self, texts: Sequence[Fields], workers: int = 1) -> Corpus:
        """Raw texts → words or pieces."""

    def encode(self, corpus: Corpus, labels: np.ndarray | None = None) -> Encoded:
        """Words or pieces → framed token ids."""

    def notes(self, validation: Encoded) -> tuple[str, ...]:
        """What a reader of the result should know of how it reads the validation texts."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes what it needs into the folder and returns what ``load`` needs besides."""


@dataclasses.dataclass(frozen=True)
class _CleanedTokeniser:
    """What tokenisers of cleaned words share."""

    cleaner: Cleaner
    vocabulary: Vocabulary | Subwords
    max_length: int
    truncate: str = "head"
    stride: int = 0
    max_windows: int = MOST_WINDOWS

    kind: ClassVar[str]
    vocabulary_type: ClassVar[type[Vocabulary] | type[Subwords]]
    vocabulary_file: ClassVar[str]
    rule: ClassVar[str]  # by which words are cut

    @classmethod
    def build(cls, corpus: Corpus, cleaner: Cleaner, config: VocabularyConfig, length: LengthConfig) -> Self:
        """That of a cleaned corpus; raises UserError where its vocabulary would be empty, or too large a file."""
        vocabulary = cls.vocabulary_type.build(corpus, config.vocabulary_size, config.min_count)
        return cls(cleaner, vocabulary, **dataclasses.asdict(length))

    @classmethod
    def cleaner_of(cls, config: CleaningConfig) -> Cleaner:
        """What cleans the texts before it is built; raises UserError where a library is missing."""
        return Cleaner(config, rule=cls.rule)

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> Self:
        """What ``save`` wrote; versions up to 0.5 had one rule."""
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
        """<CLS> in front, nothing behind."""
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
    """What one of ``TOKENISERS`` saved; versions up to 0.5 had words alone."""
    return TOKENISERS[config.get("kind", "words")].load(folder, config)


@dataclasses.dataclass(frozen=True)
class PieceTokeniser:
    """The pieces of a published checkpoint, between its [CLS] and [SEP].

    Attributes:
        cutter: what cuts a text into pieces.
        join: what is put between a text's fields.
        pairs: whether a text is two fields, each a segment (``pairs.py``); there is no ``join`` then.
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
        """With the join and the pairs that ``DataConfig.join_fields`` means."""
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
        """The encoder's tokens around a text, or around and between two."""
        cls_id, sep_id = self.cutter.cls_id, self.cutter.sep_id
        if self.pairs:
            return PairFraming(self.max_length, cls_id, sep_id, self.size, self.cutter.middle, self.cutter.segments)
        return Framing(self.max_length, self.truncate, cls_id, sep_id, self.stride, self.max_windows)

    @cached_property
    def key(self) -> str:
        """What the pieces depend on besides the texts."""
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
