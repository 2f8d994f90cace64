"""Examples → batches.

Shapes: ``B`` rows, ``S`` tokens of the longest row, ``A`` tokens of the longest answer, ``M`` most pictures of a
row, ``T`` tiles.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.feed import Batches, Spec, endless
from vision_bridge.llama.config import LlamaConfig
from vision_bridge.llama.examples import Example, Tokens
from vision_bridge.llama.pictures import seen_tiles
from vision_bridge.llama.sight import AlbumPictures


class LlamaBatch(NamedTuple):
    """One batch; ``mask`` counts the answer's tokens, so that the loss is their mean over the whole batch."""

    tokens: Any  # [B, S] int32
    real: Any  # [B, S] int32, 1 for a token and 0 for padding
    sight: Any  # [B, M, …] of every picture: its tiles, or a frozen tower's states of them
    aspect_ratios: Any  # [B, M] int32
    tiles: Any  # [B, M, T] int32
    seen: Any  # [B, S, M, T] int32
    places: Any  # [B, A] int32 places of the tokens whose logits are used
    targets: Any  # [B, A] int32 the tokens that follow these
    weights: Any  # [B, A] float32, 1 for a token of the answer and 0 for padding
    mask: Any  # [B] float32


class Rows(NamedTuple):
    """The rows from which batches are made.

    Attributes:
        examples, tokens: of every row.
        shown: the pictures of all splits.
        config: of the model.
        lengths: S, A and M over all splits.
    """

    examples: Sequence[Example]
    tokens: Sequence[Tokens]
    shown: AlbumPictures
    config: LlamaConfig
    lengths: tuple[int, int, int]

    def batch(self, rows: Sequence[int]) -> LlamaBatch:
        """The batch of these rows."""
        length, answers, most = self.lengths
        count, tiles, sight, kind = (
            len(rows),
            self.shown.tiles.shape[1],
            self.shown.sight.shape[1:],
            self.shown.sight.dtype,
        )
        batch = LlamaBatch(
            np.full((count, length), self.config.pad_token, np.int32), np.zeros((count, length), np.int32),
            np.zeros((count, most, *sight), kind), np.zeros((count, most), np.int32),
            np.zeros((count, most, tiles), np.int32), np.zeros((count, length, most, tiles), np.int32),
            np.zeros((count, answers), np.int32), np.zeros((count, answers), np.int32),
            np.zeros((count, answers), np.float32), np.zeros(count, np.float32),
        )  # fmt: skip
        for place, row in enumerate(rows):
            self._fill(batch, place, self.examples[row], self.tokens[row])
        return batch

    def _fill(self, batch: LlamaBatch, row: int, example: Example, tokens: Tokens) -> None:
        ids, first, size = np.array(tokens.ids), tokens.first, len(tokens.ids)
        batch.tokens[row, :size], batch.real[row, :size] = ids, 1
        numbers = [self.shown.number_of[key] for key in example.pictures]
        if numbers:
            pictures = len(numbers)
            batch.sight[row, :pictures] = self.shown.sight[numbers]
            batch.aspect_ratios[row, :pictures] = self.shown.aspect_ratios[numbers]
            batch.tiles[row, :pictures] = self.shown.tiles[numbers]
            batch.seen[row, :size, :pictures] = seen_tiles(
                tokens.ids, self.config.image_token, self.shown.tiles[numbers]
            )
        answer = size - first
        batch.places[row, :answer] = np.arange(first - 1, size - 1)
        batch.targets[row, :answer], batch.weights[row, :answer], batch.mask[row] = ids[first:], 1.0, answer


def training_batches(rows: Rows, size: int, seed: int, first_step: int = 0) -> Batches:
    """Endless full batches from ``first_step`` on: every row once an epoch, each epoch in a new order."""

    def order(epoch: int) -> tuple[np.ndarray]:
        return (np.random.default_rng([seed, epoch]).permutation(len(rows.examples)),)

    def batches() -> Iterator[LlamaBatch]:
        for (chosen,) in endless(order, len(rows.examples), size, first_step):
            yield rows.batch(chosen.tolist())

    return Batches(batches, _spec(rows, size))


def evaluation_batches(rows: Rows, size: int) -> Batches:
    """Every row once and in order; filler are other rows with ``mask`` 0."""

    def batches() -> Iterator[LlamaBatch]:
        for first in range(0, len(rows.examples), size):
            numbers = np.arange(first, first + size)
            batch = rows.batch((numbers % len(rows.examples)).tolist())
            yield batch._replace(mask=batch.mask * (numbers < len(rows.examples)))

    return Batches(batches, _spec(rows, size))


def _spec(rows: Rows, size: int) -> LlamaBatch:
    one = rows.batch([0])
    return LlamaBatch(*(Spec((size, *field.shape[1:]), field.dtype.name) for field in one))
