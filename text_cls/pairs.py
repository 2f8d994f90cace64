"""Two texts as BERT reads them: [CLS] A [SEP] B [SEP], with A in the first segment and B in the second.

RoBERTa and others have two [SEP] in the middle, and both texts in the first segment.

An id of the second segment is raised by ``SEGMENT``, so that ids alone say which segment they are in: ``id % SEGMENT``
is the piece, ``id // SEGMENT`` the segment. Batches, evaluation and artefacts need nothing besides. In a corpus, whose
ids are places in a lexicon, they are raised by the size of the vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from files.errors import UserError
from text_cls.pieces import Cutter, corpus_of, end_to_end
from text_cls.preprocess import Corpus, Fields, map_chunks
from text_cls.vocabulary import SEGMENT


class PairFraming(NamedTuple):
    """The special tokens around two texts, and how much of them there is room for.

    Attributes:
        max_length: longest result in tokens.
        first, last: ids of [CLS] and [SEP].
        size: of the vocabulary.
        middle: how many [SEP] stand between the texts.
        segments: whether the second text is in the second segment.
    """

    max_length: int
    first: int
    last: int
    size: int
    middle: int = 1
    segments: bool = True

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """The bare ids of A, and behind them those of B, raised → int32 ids, cut and framed."""
        count, raised = np.count_nonzero(ids < self.size), SEGMENT if self.segments else 0
        second = ids[count:] + (raised - self.size)
        return self._framed(ids[:count], second, self.first, self.last, self.last + raised)

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """``apply``: a pair that does not fit is cut."""
        return [self.apply(ids)]

    def places(self, ids: np.ndarray) -> np.ndarray:
        """What ``apply`` gives, with the place of each id among those of both texts; -1 for the tokens around them."""
        count, place = np.count_nonzero(ids < self.size), np.arange(len(ids))
        return self._framed(place[:count], place[count:], -1, -1, -1)

    def _framed(self, a: np.ndarray, b: np.ndarray, first: int, middle: int, last: int) -> np.ndarray:
        keep_a, keep_b = longest_first(len(a), len(b), max(0, self.max_length - 2 - self.middle))
        return np.array([first, *a[:keep_a], *[middle] * self.middle, *b[:keep_b], last], np.int32)


def longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """What two texts of ``a`` and ``b`` tokens keep of ``room``: the longer one is cut, or both if both are too long.

    As the ``tokenizers`` library does (``longest_first``); of an odd room the longer one has the larger half, B where
    they are equal.
    """
    short, long = min(a, b), max(a, b)
    if short + long > room:
        long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (long, short) if a > b else (short, long)


def tokenise_pairs(texts: Sequence[Fields], cutter: Cutter, workers: int = 1) -> Corpus:
    """Pairs → their pieces, those of the second text raised; the lexicon is the vocabulary, twice.

    Raises:
        UserError: a text has not two fields.
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
