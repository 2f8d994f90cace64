"""Bare ids of many texts → framed and cut token ids: the one place where texts are framed.

Needs NumPy only.
"""

import dataclasses
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from text_cls.vocabulary import CLS_ID


class Framing(NamedTuple):
    """The special tokens around a text, and how much of it there is room for.

    Attributes:
        max_length: longest result in tokens.
        truncate: what a longer text keeps: ``head``, ``tail``, or ``head_tail`` (its first quarter and its last three;
            long reviews say what they think at the end, Sun et al. 2019).
        first: id of the opening token.
        last: id of the closing token, or None for none.
    """

    max_length: int
    truncate: str = "head"
    first: int = CLS_ID
    last: int | None = None

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """One text's ids → int32 ids with the opening token, cut, and with the closing token where there is one."""
        closing = [] if self.last is None else [self.last]
        room = self.max_length - 1 - len(closing)
        if len(ids) > room:
            head = {"head": room, "tail": 0, "head_tail": room // 4}[self.truncate]
            ids = np.concatenate([ids[:head], ids[len(ids) - (room - head) :]])
        return np.concatenate([[self.first], ids, closing]).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of every example of a split: ``ids[offsets[i]:offsets[i + 1]]``, the opening token in front."""

    ids: np.ndarray  # int32, all texts end to end
    offsets: np.ndarray  # [N + 1] int64
    labels: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Encoded":
        """The examples at ``rows``."""
        texts = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
        return Encoded(np.concatenate(texts), offsets, self.labels[rows])

    @cached_property
    def lengths(self) -> np.ndarray:
        """[N] tokens of each example."""
        return np.diff(self.offsets)


def unknown_share(encoded: Encoded, unknown: int, framing_tokens: int) -> float:
    """The share of tokens that are ``unknown``, those of the framing (so many a text) left out."""
    tokens = len(encoded.ids) - framing_tokens * len(encoded)
    return float(np.count_nonzero(encoded.ids == unknown)) / max(1, tokens)


class AnyFraming(Protocol):
    """``Framing``, or that of pairs."""

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """One text's bare ids → int32 ids, framed and cut."""


def encode(ids: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None, framing: AnyFraming) -> Encoded:
    """Bare ids, all texts end to end, framed text by text; labels None becomes 0."""
    texts = [framing.apply(ids[start:stop]) for start, stop in pairwise(offsets)]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    flat = np.concatenate(texts) if texts else np.zeros(0, np.int32)
    return Encoded(flat, ends, np.zeros(len(texts), np.int32) if labels is None else labels)
