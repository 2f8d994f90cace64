"""Ids of many texts → token ids with special tokens around them, truncated or in windows; needs only NumPy."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from text_cls.tokens.length_config import MOST_WINDOWS, WINDOWS
from text_cls.tokens.vocabulary import CLS_ID


class Framing(NamedTuple):
    """The special tokens around a text, and the part of a long text that is kept.

    Attributes:
        max_length: largest number of tokens in a result.
        truncate: the part of a longer text that is kept: ``head``, ``tail`` or ``head_tail`` (a quarter from the start,
            three quarters from the end: long reviews state their opinion at the end, Sun et al. 2019); or ``windows``:
            all of it, in several results.
        first: id of the opening token.
        last: id of the closing token; None if there is none.
        stride: number of ids between the starts of two windows; 0: half of ``room``.
        max_windows: largest number of windows of a text.
    """

    max_length: int
    truncate: str = "head"
    first: int = CLS_ID
    last: int | None = None
    stride: int = 0
    max_windows: int = MOST_WINDOWS

    @property
    def room(self) -> int:
        """The number of a text's ids in one result."""
        return self.max_length - 1 - (self.last is not None)

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """One text's ids → int32 ids, truncated, with the opening token, and the closing token if there is one."""
        if len(ids) > self.room:
            head = {"head": self.room, "tail": 0, "head_tail": self.room // 4}[self.truncate]
            ids = np.concatenate([ids[:head], ids[len(ids) - (self.room - head) :]])
        return np.concatenate([[self.first], ids, [] if self.last is None else [self.last]]).astype(np.int32)

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """The result of ``apply``; with ``windows``, a long text's windows, all of the largest length."""
        if self.truncate != WINDOWS or len(ids) <= self.room:
            return [self.apply(ids)]
        return [self.apply(ids[start : start + self.room]) for start in self._starts(len(ids))]

    def _starts(self, length: int) -> list[int]:
        """The starts of a text's windows: every ``stride`` ids, but the last window ends with the text.

        If there would be more than ``max_windows``, they are spread evenly, with gaps between them if necessary.
        """
        last, stride = length - self.room, self.stride or max(1, self.room // 2)
        count = 1 + -(-last // stride)
        if count <= self.max_windows:
            return [min(place * stride, last) for place in range(count)]
        return [place * last // (self.max_windows - 1) for place in range(self.max_windows)]

    def places(self, ids: np.ndarray) -> np.ndarray:
        """The concatenated ``windows``, with positions in the text in place of the ids; -1 for special tokens."""
        around = self._replace(first=-1, last=None if self.last is None else -1)
        return np.concatenate(around.windows(np.arange(len(ids))))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of every text of a split, in one window or in several.

    Window w has the ids ``ids[offsets[w]:offsets[w + 1]]``, the opening token included; text i has the windows from
    ``windows[i]`` to ``windows[i + 1]`` - 1. All windows of a text have the same length.
    """

    ids: np.ndarray  # int32, all windows concatenated
    offsets: np.ndarray  # [W + 1] int64
    labels: np.ndarray  # [N] int32
    scores: np.ndarray | None = None  # [N, K] float32, of the linear path, if there is one
    windows: np.ndarray | None = None  # [N + 1] int64; None: every text has one window

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Encoded":
        """The texts at ``rows``."""
        places, ends = rows, None
        if self.windows is not None:
            places = np.concatenate([np.arange(self.windows[row], self.windows[row + 1]) for row in rows])
            ends = _ends(self.num_windows[rows])
        parts = [self.ids[self.offsets[place] : self.offsets[place + 1]] for place in places]
        scores = None if self.scores is None else self.scores[rows]
        return Encoded(np.concatenate(parts), _ends(list(map(len, parts))), self.labels[rows], scores, ends)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[W] tokens of each window."""
        return np.diff(self.offsets)

    @cached_property
    def num_windows(self) -> np.ndarray:
        """[N] windows of each text."""
        return np.ones(len(self), np.int64) if self.windows is None else np.diff(self.windows)

    def texts_of(self, windows: np.ndarray) -> np.ndarray:
        """The text of each window."""
        return windows if self.windows is None else np.searchsorted(self.windows, windows, side="right") - 1

    def averaged(self, values: np.ndarray) -> np.ndarray:
        """[W, …] values of windows → [N, …] means over the windows of each text."""
        if self.windows is None:
            return values
        sums = np.add.reduceat(values.astype(np.float64), self.windows[:-1])
        return (sums / self.num_windows.reshape(-1, *[1] * (values.ndim - 1))).astype(values.dtype)

    def drawn_windows(self, seed: int, epoch: int) -> np.ndarray:
        """[N] one window of each text: a random one in the first epoch, and the next one in each later epoch."""
        if self.windows is None:
            return np.arange(len(self))
        first = np.random.default_rng([seed, 0, 1]).integers(self.num_windows)  # batches are drawn from [seed, epoch]
        return self.windows[:-1] + (first + epoch) % self.num_windows

    @property
    def sizes(self) -> str:
        """The mean length of a text, as text."""
        if self.windows is None:
            return f"{self.lengths.mean():.0f} tokens"
        return f"{self.num_windows.mean():.1f} windows of {self.lengths.mean():.0f} tokens"


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """[… + 1] int64 offsets of concatenated parts of these lengths, with the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def unknown_share(encoded: Encoded, unknown: int, framing_tokens: int) -> float:
    """The share of tokens that are ``unknown``; ``framing_tokens`` in each window are not counted."""
    tokens = len(encoded.ids) - framing_tokens * len(encoded.lengths)
    return float(np.count_nonzero(encoded.ids == unknown)) / max(1, tokens)


class AnyFraming(Protocol):
    """``Framing`` or ``PairFraming``."""

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """One text's ids → int32 ids of each of its windows, with special tokens."""

    def places(self, ids: np.ndarray) -> np.ndarray:
        """The concatenated ``windows``, with positions in the text in place of the ids; -1 for special tokens."""


def encode(ids: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None, framing: AnyFraming) -> Encoded:
    """Ids of all texts, concatenated → framed windows of every text; labels of None become 0."""
    texts = [framing.windows(ids[start:stop]) for start, stop in pairwise(offsets)]
    parts = [window for text in texts for window in text]
    flat = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    windows = None if len(parts) == len(texts) else _ends(list(map(len, texts)))
    labels = np.zeros(len(texts), np.int32) if labels is None else labels
    return Encoded(flat, _ends(list(map(len, parts))), labels, windows=windows)
