"""Bare ids of many texts → framed and cut token ids: the one place where texts are framed.

Needs NumPy only.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from text_cls.length_config import MOST_WINDOWS, WINDOWS
from text_cls.vocabulary import CLS_ID


class Framing(NamedTuple):
    """The special tokens around a text, and how much of it there is room for.

    Attributes:
        max_length: longest result in tokens.
        truncate: what a longer text keeps: ``head``, ``tail``, or ``head_tail`` (its first quarter and its last three;
            long reviews say what they think at the end, Sun et al. 2019); or ``windows``: all, in several results.
        first: id of the opening token.
        last: id of the closing token, or None for none.
        stride: ids from where a window begins to where the next one does; 0: half of what a window has room for.
        max_windows: most windows of a text.
    """

    max_length: int
    truncate: str = "head"
    first: int = CLS_ID
    last: int | None = None
    stride: int = 0
    max_windows: int = MOST_WINDOWS

    @property
    def room(self) -> int:
        """Ids of a text that are read at a time."""
        return self.max_length - 1 - (self.last is not None)

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """One text's ids → int32 ids with the opening token, cut, and with the closing token where there is one."""
        if len(ids) > self.room:
            head = {"head": self.room, "tail": 0, "head_tail": self.room // 4}[self.truncate]
            ids = np.concatenate([ids[:head], ids[len(ids) - (self.room - head) :]])
        return np.concatenate([[self.first], ids, [] if self.last is None else [self.last]]).astype(np.int32)

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """``apply``, or, of a text that does not fit, its windows: all as long as they may be."""
        if self.truncate != WINDOWS or len(ids) <= self.room:
            return [self.apply(ids)]
        return [self.apply(ids[start : start + self.room]) for start in self._starts(len(ids))]

    def _starts(self, length: int) -> list[int]:
        """Where the windows of a text begin: every ``stride`` ids, the last so that it ends with the text.

        Where there would be too many, they are spread evenly, and where they are too few to touch, with gaps.
        """
        last, stride = length - self.room, self.stride or max(1, self.room // 2)
        count = 1 + -(-last // stride)
        if count <= self.max_windows:
            return [min(place * stride, last) for place in range(count)]
        return [place * last // (self.max_windows - 1) for place in range(self.max_windows)]

    def places(self, ids: np.ndarray) -> np.ndarray:
        """What ``windows`` give, end to end, with the place of each id in the text; -1 for the tokens around it."""
        around = self._replace(first=-1, last=None if self.last is None else -1)
        return np.concatenate(around.windows(np.arange(len(ids))))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of every text of a split, in one window or in several.

    Those of window w are ``ids[offsets[w]:offsets[w + 1]]``, the opening token in front; text i has the windows from
    ``windows[i]`` up to ``windows[i + 1]``. Windows of a text are of one length.
    """

    ids: np.ndarray  # int32, all windows end to end
    offsets: np.ndarray  # [W + 1] int64
    labels: np.ndarray  # [N] int32
    scores: np.ndarray | None = None  # [N, K] float32, of the linear path, if there is one
    windows: np.ndarray | None = None  # [N + 1] int64; None: every text has one

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
        """The texts whose windows these are."""
        return windows if self.windows is None else np.searchsorted(self.windows, windows, side="right") - 1

    def averaged(self, values: np.ndarray) -> np.ndarray:
        """[W, …] of the windows → [N, …], their means over each text; a text of one window has what that has."""
        if self.windows is None:
            return values
        sums = np.add.reduceat(values.astype(np.float64), self.windows[:-1])
        return (sums / self.num_windows.reshape(-1, *[1] * (values.ndim - 1))).astype(values.dtype)

    def drawn_windows(self, seed: int, epoch: int) -> np.ndarray:
        """[N] one window of each text: a random one in the first epoch, and then always the next."""
        if self.windows is None:
            return np.arange(len(self))
        first = np.random.default_rng([seed, 0, 1]).integers(self.num_windows)  # batches are drawn from [seed, epoch]
        return self.windows[:-1] + (first + epoch) % self.num_windows

    @property
    def sizes(self) -> str:
        """How long a text is on average, to be read."""
        if self.windows is None:
            return f"{self.lengths.mean():.0f} tokens"
        return f"{self.num_windows.mean():.1f} windows of {self.lengths.mean():.0f} tokens"


def _ends(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """[… + 1] int64 where each of what lies end to end begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def unknown_share(encoded: Encoded, unknown: int, framing_tokens: int) -> float:
    """The share of tokens that are ``unknown``, those of the framing (so many a window) left out."""
    tokens = len(encoded.ids) - framing_tokens * len(encoded.lengths)
    return float(np.count_nonzero(encoded.ids == unknown)) / max(1, tokens)


class AnyFraming(Protocol):
    """``Framing``, or that of pairs."""

    def windows(self, ids: np.ndarray) -> list[np.ndarray]:
        """One text's bare ids → int32 ids of each of its windows, framed and cut."""

    def places(self, ids: np.ndarray) -> np.ndarray:
        """What ``windows`` give, end to end, with the place of each id in the text; -1 for the tokens around it."""


def encode(ids: np.ndarray, offsets: np.ndarray, labels: np.ndarray | None, framing: AnyFraming) -> Encoded:
    """Bare ids, all texts end to end, framed text by text; labels None becomes 0."""
    texts = [framing.windows(ids[start:stop]) for start, stop in pairwise(offsets)]
    parts = [window for text in texts for window in text]
    flat = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    windows = None if len(parts) == len(texts) else _ends(list(map(len, texts)))
    labels = np.zeros(len(texts), np.int32) if labels is None else labels
    return Encoded(flat, _ends(list(map(len, parts))), labels, windows=windows)
