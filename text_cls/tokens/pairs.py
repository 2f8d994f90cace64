"""Two texts as BERT reads them: [CLS] A [SEP] B [SEP], with A in the first segment and B in the second.

RoBERTa and others have two [SEP] in the middle, and both texts in the first segment.

``SEGMENT`` is added to the ids of the second segment, so that ids include their segment: ``id % SEGMENT`` is the piece,
``id // SEGMENT`` the segment. Batches, evaluation and artefacts need no other field. In a corpus, whose ids are places
in a lexicon, the size of the vocabulary is added instead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from files.errors import UserError
from text_cls.data.fields import Fields
from text_cls.tokens.pieces import Cutter, corpus_of, end_to_end
from text_cls.tokens.preprocess import Corpus, map_chunks
from text_cls.tokens.vocabulary import SEGMENT


class PairFraming(NamedTuple):
    """The special tokens around two texts, and the largest length of the result.

    Attributes:
        max_length: largest number of tokens in the result.
        first, last: ids of [CLS] and [SEP].
        size: of the vocabulary.
        middle: number of [SEP] between the texts.
        segments: whether the second text is in the second segment.
    """

    max_length: int
    first: int
    last: int
    size: int
    middle: int = 1
    segments: bool = True

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """The ids of A, followed by those of B plus ``size`` → int32 ids, truncated, with special tokens."""
        count, raised = np.count_nonzero(ids < self.size), SEGMENT if self.segments else 0
        second = ids[count:] + (raised - self.size)
        return self._framed(ids[:count], second, self.first, self.last, self.last + raised)

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """One window: a pair that is too long is truncated."""
        return [self.apply(ids)]

    def places(self, ids: np.ndarray) -> np.ndarray:
        """The result of ``apply`` with each id's place in ``ids`` instead of the id; -1 for special tokens."""
        count, place = np.count_nonzero(ids < self.size), np.arange(len(ids))
        return self._framed(place[:count], place[count:], -1, -1, -1)

    def _framed(self, a: np.ndarray, b: np.ndarray, first: int, middle: int, last: int) -> np.ndarray:
        keep_a, keep_b = longest_first(len(a), len(b), max(0, self.max_length - 2 - self.middle))
        return np.array([first, *a[:keep_a], *[middle] * self.middle, *b[:keep_b], last], np.int32)


def longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """The numbers of tokens that texts of ``a`` and ``b`` tokens keep; together at most ``room``.

    The longer text is truncated, or both if both are too long, as in the ``tokenizers`` library (``longest_first``). If
    ``room`` is odd, the longer text keeps one token more, or B if they are equally long.
    """
    short, long = min(a, b), max(a, b)
    if short + long > room:
        long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (long, short) if a > b else (short, long)


def tokenise_pairs(texts: Sequence[Fields], cutter: Cutter, workers: int = 1) -> Corpus:
    """Pairs → their pieces; the lexicon is the vocabulary twice, the second time for the second text.

    Raises:
        UserError: a text does not have two fields.
    """
    parts = map_chunks(_chunk_pairs, cutter, texts, workers)
    return corpus_of(parts, cutter.words * 2)


def _chunk_pairs(cutter: Cutter, texts: Sequence[Fields]) -> tuple[np.ndarray, np.ndarray]:
    size, pieces = len(cutter), []
    for fields in texts:
        if len(fields) != 2:
            text = " ".join(fields)[:40]
            raise UserError(f"--join_fields=pair: a pair has two fields, and {text!r} has {len(fields)}")
        first, second = map(cutter.pieces, fields)
        pieces.append([*first, *(piece + size for piece in second)])
    return end_to_end(pieces)
