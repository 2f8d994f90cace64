"""Texts → the pieces of a published encoder, by either implementation of its tokeniser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from text_cls.data.fields import Fields
from text_cls.tokens.library_pieces import LibraryPieces
from text_cls.tokens.preprocess import Corpus, map_chunks
from text_cls.tokens.wordpiece import WordPiece


class Cutter(Protocol):
    """The tokeniser of one published encoder, which cuts texts into pieces.

    Attributes:
        kind: its name in ``CUTTERS``.
        file: the name of the file that ``save`` writes.
        words: the pieces by id; 0 is padding.
        cls_id, sep_id: the tokens before and after a text.
        unk_id, mask_id: for unknown characters, and for a masked piece; None if there is no such token.
        separator: the text between two fields of one text.
        middle: number of ``sep_id`` between two texts.
        segments: whether the second of two texts is in another segment than the first.
        key: a hash of everything that the pieces of a text depend on.
    """

    kind: ClassVar[str]
    file: str
    words: tuple[str, ...]
    cls_id: int
    sep_id: int
    middle: int
    segments: bool

    @property
    def unk_id(self) -> int | None: ...

    @property
    def mask_id(self) -> int | None: ...

    @property
    def separator(self) -> str: ...

    @property
    def key(self) -> str: ...

    def __len__(self) -> int: ...

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length between its two special tokens."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes its file, and returns the other arguments of ``load``."""

    @classmethod
    def load(cls, folder: Path, options: dict[str, Any]) -> Self:
        """Reads the file of ``save``; raises UserError if it is missing or damaged."""


CUTTERS: dict[str, type[WordPiece] | type[LibraryPieces]] = {cls.kind: cls for cls in (WordPiece, LibraryPieces)}


def tokenise_pieces(texts: Sequence[Fields], cutter: Cutter, join: str = " ", workers: int = 1) -> Corpus:
    """Texts → pieces without special tokens, as ``preprocess.tokenise`` for words.

    Args:
        texts: of one or more fields.
        cutter: the tokeniser; its pieces are the lexicon of the result.
        join: the text between fields that are not empty.
        workers: number of processes; 0: one for each core.
    """
    parts = map_chunks(_chunk_pieces, (cutter, join), texts, workers)
    return corpus_of(parts, cutter.words)


def corpus_of(parts: Sequence[tuple[np.ndarray, np.ndarray]], lexicon: Sequence[str]) -> Corpus:
    """One corpus from the results of ``end_to_end`` for all chunks of the texts."""
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in parts)])
    return Corpus(list(lexicon), ids, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def end_to_end(pieces: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """All pieces concatenated, and the number of pieces of each text."""
    flat = np.fromiter((piece for text in pieces for piece in text), np.int32)
    return flat, np.array([len(text) for text in pieces], np.int64)


def _chunk_pieces(tool: tuple[Cutter, str], texts: Sequence[Fields]) -> tuple[np.ndarray, np.ndarray]:
    cutter, join = tool
    return end_to_end([cutter.pieces(one_text(fields, join)) for fields in texts])


def one_text(fields: Fields, join: str) -> str:
    """The fields that are not empty, joined to one text."""
    return join.join(field for field in fields if field.strip())
