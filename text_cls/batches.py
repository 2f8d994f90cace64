"""Encoded texts → tf.data batches of fixed shapes, bucketed by length.

Which rows stand in batch n of training is a pure function of the seed and n, so a run resumes at any step without
replaying the ones before. ``B`` batch, ``T`` tokens.
"""

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from text_cls.preprocess import Corpus
from text_cls.vocabulary import CLS_ID, PAD_ID, Vocabulary, frame


class Batch(NamedTuple):
    """One batch; rows beyond the last example are filler."""

    tokens: Any  # [B, T] int32, 0 where padded
    label: Any  # [B] int32
    row: Any  # [B] int32 place of the example in its split, -1 for filler
    mask: Any  # [B] float32, 1 for an example and 0 for filler


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Token ids of every example of a split: ``ids[offsets[i]:offsets[i + 1]]``, with <CLS> in front."""

    ids: np.ndarray  # int32, all texts end to end
    offsets: np.ndarray  # [N + 1] int64
    labels: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[N] tokens of each example."""
        return np.diff(self.offsets)


def encode(
    corpus: Corpus, vocabulary: Vocabulary, labels: np.ndarray | None, max_length: int, truncate: str = "head"
) -> Encoded:
    """Words → ids, framed by <CLS> and cut to ``max_length``; labels None becomes 0."""
    ids = vocabulary.ids(corpus.lexicon)[corpus.ids] if len(corpus.ids) else corpus.ids
    bounds = zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    texts = [frame(ids[start:stop], max_length, truncate) for start, stop in bounds]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    flat = np.concatenate(texts) if texts else np.zeros(0, np.int32)
    return Encoded(flat, offsets, np.zeros(len(texts), np.int32) if labels is None else labels)


def bucket_lengths(max_length: int) -> np.ndarray:
    """Padded lengths: steps of an eighth of the power of two below, at least 4, up to ``max_length``."""
    lengths, length = [], 8
    while length < max_length:
        lengths.append(length)
        length += max(4, 1 << (length.bit_length() - 4))
    return np.array([*lengths, max_length])


def _plan(
    lengths: np.ndarray, batch_size: int, buckets: np.ndarray, shuffle: np.random.Generator | None
) -> list[tuple[int, np.ndarray]]:
    """Batches as (padded length, rows).

    With ``shuffle``, rows that do not fill a bucket's last batch go up to the next bucket, so that only the very last
    batch is ragged, and the number of batches is the same in every epoch. Without, each row is padded to its own
    bucket: what a text is padded to then depends on nothing but itself.
    """
    bucket_of = np.searchsorted(buckets, lengths)
    plan: list[tuple[int, np.ndarray]] = []
    waiting = np.zeros(0, np.int64)
    for place, padded in enumerate(buckets):
        rows = np.flatnonzero(bucket_of == place)
        if shuffle is not None:
            rows = np.concatenate([waiting, shuffle.permutation(rows)])
            full = len(rows) // batch_size * batch_size if place < len(buckets) - 1 else len(rows)
            rows, waiting = rows[:full], rows[full:]
        plan += [(int(padded), rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return [plan[i] for i in shuffle.permutation(len(plan))] if shuffle is not None else plan


def _batch(encoded: Encoded, rows: np.ndarray, batch_size: int, padded: int) -> Batch:
    """One batch of ``batch_size`` rows, filled up where there are fewer."""
    tokens = np.full((batch_size, padded), PAD_ID, np.int32)
    tokens[:, 0] = CLS_ID  # filler too: attention over nothing is not a number
    for place, row in enumerate(rows):
        start, stop = encoded.offsets[row], encoded.offsets[row + 1]
        tokens[place, : stop - start] = encoded.ids[start:stop]
    filler = batch_size - len(rows)
    return Batch(
        tokens,
        np.pad(encoded.labels[rows], (0, filler)).astype(np.int32),
        np.pad(rows, (0, filler), constant_values=-1).astype(np.int32),
        np.pad(np.ones(len(rows), np.float32), (0, filler)),
    )


def _dataset(batches: Any, batch_size: int) -> tf.data.Dataset:
    signature = Batch(
        tf.TensorSpec([batch_size, None], tf.int32),
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size], tf.float32),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(8)


def steps_per_epoch(encoded: Encoded, batch_size: int) -> int:
    """Training batches in one pass over the examples."""
    return -(-len(encoded) // batch_size)


def training_batches(encoded: Encoded, batch_size: int, seed: int, first_step: int = 0) -> tf.data.Dataset:
    """The endless stream of training batches from ``first_step`` on, shuffled anew in every epoch."""
    buckets = bucket_lengths(int(encoded.lengths.max()))
    per_epoch = steps_per_epoch(encoded, batch_size)

    def batches() -> Iterator[Batch]:
        step = first_step
        while True:
            epoch, place = divmod(step, per_epoch)
            plan = _plan(encoded.lengths, batch_size, buckets, np.random.default_rng([seed, epoch]))
            for padded, rows in plan[place:]:
                yield _batch(encoded, rows, batch_size, padded)
                step += 1

    return _dataset(batches, batch_size)


def evaluation_batches(encoded: Encoded, batch_size: int, max_length: int) -> tf.data.Dataset:
    """Every example once, in order of length."""
    plan = _plan(encoded.lengths, batch_size, bucket_lengths(max_length), None)
    return _dataset(lambda: (_batch(encoded, rows, batch_size, padded) for padded, rows in plan), batch_size)
