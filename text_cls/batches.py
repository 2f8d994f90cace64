"""Encoded texts → batches of fixed shapes, bucketed by length.

The rows of training batch n are a pure function of the seed and n, so a run resumes at any step without making the
batches before it. ``B`` batch, ``T`` tokens, ``K`` classes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from text_cls.tokens.encoding import Encoded
from text_cls.tokens.vocabulary import PAD_ID
from training.feed import Batches, Spec, padded_rows

Rows = int | Callable[[int], int]  # of a batch: a number, or padded length → number


class Batch(NamedTuple):
    """One batch; rows beyond the last example are filler."""

    tokens: Any  # [B, T] int32, 0 where padded
    label: Any  # [B] int32, or [B, K] uint8 of 0 and 1 with several labels a text
    row: Any  # [B] int32 number of the text's window in its split, -1 for filler
    mask: Any  # [B] float32, 1 for an example and 0 for filler


def token_budget(tokens: int) -> Callable[[int], int]:
    """Padded length → rows of a batch of at most ``tokens`` positions, and at least one row."""
    return lambda padded: max(1, tokens // padded)


def bucket_lengths(max_length: int) -> np.ndarray:
    """Padded lengths up to ``max_length``, in steps of at least 4, or of an eighth of the next lower power of two."""
    lengths, length = [], 8
    while length < max_length:
        lengths.append(length)
        length += max(4, 1 << (length.bit_length() - 4))
    return np.array([*lengths, max_length])


def _plan(
    lengths: np.ndarray, rows_at: Callable[[int], int], buckets: np.ndarray, shuffle: np.random.Generator | None
) -> list[tuple[int, np.ndarray]]:
    """Batches as (padded length, rows).

    With ``shuffle``, rows left over from a bucket are padded to the next bucket's length, so that only the very last
    batch is ragged, and the number of batches is the same in every epoch. Without ``shuffle``, each row is padded to
    its own bucket, so the padding of a text does not depend on other texts.
    """
    bucket_of = np.searchsorted(buckets, lengths)
    plan: list[tuple[int, np.ndarray]] = []
    waiting = np.zeros(0, np.int64)
    for place, padded in enumerate(buckets):
        size = rows_at(int(padded))
        rows = np.flatnonzero(bucket_of == place)
        if shuffle is not None:
            rows = np.concatenate([waiting, shuffle.permutation(rows)])
            full = len(rows) // size * size if place < len(buckets) - 1 else len(rows)
            rows, waiting = rows[:full], rows[full:]
        plan += [(int(padded), rows[i : i + size]) for i in range(0, len(rows), size)]
    return [plan[i] for i in shuffle.permutation(len(plan))] if shuffle is not None else plan


def _batch(encoded: Encoded, rows: np.ndarray, size: int, length: int) -> Batch:
    """One batch of ``size`` rows, with filler if there are fewer."""
    filler = size - len(rows)
    own = [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in rows]
    own += [encoded.ids[:1]] * filler  # the opening token: attention over no token would be NaN
    label = np.zeros((size, *encoded.labels.shape[1:]), _label_dtype(encoded))
    label[: len(rows)] = encoded.labels[encoded.texts_of(rows)]
    return Batch(
        padded_rows(own, length, PAD_ID),
        label,
        np.pad(rows, (0, filler), constant_values=-1).astype(np.int32),
        np.pad(np.ones(len(rows), np.float32), (0, filler)),
    )


def _label_dtype(encoded: Encoded) -> str:
    return "int32" if encoded.labels.ndim == 1 else "uint8"


def _batches(make: Callable[[], Iterator[Batch]], encoded: Encoded, rows: Rows) -> Batches:
    size = rows if isinstance(rows, int) else None
    label = Spec((size, *encoded.labels.shape[1:]), _label_dtype(encoded))
    spec = Batch(Spec((size, None), "int32"), label, Spec((size,), "int32"), Spec((size,), "float32"))
    return Batches(make, spec, ahead=8)


def _function(rows: Rows) -> Callable[[int], int]:
    return (lambda padded: rows) if isinstance(rows, int) else rows


def steps_per_epoch(encoded: Encoded, rows: Rows) -> int:
    """Training batches in one pass over the texts."""
    buckets = bucket_lengths(int(encoded.lengths.max()))
    lengths = encoded.lengths[encoded.drawn_windows(0, 0)]
    return len(_plan(lengths, _function(rows), buckets, np.random.default_rng(0)))


def training_batches(encoded: Encoded, rows: Rows, seed: int, first_step: int = 0) -> Batches:
    """The endless stream of training batches from ``first_step`` on, shuffled anew in every epoch.

    A text of several windows is in an epoch with one of them, in the next epoch with the next: an epoch costs what one
    of cut texts does, and a text weighs 1.
    """
    buckets = bucket_lengths(int(encoded.lengths.max()))
    per_epoch, rows_at = steps_per_epoch(encoded, rows), _function(rows)

    def batches() -> Iterator[Batch]:
        step = first_step
        while True:
            epoch, place = divmod(step, per_epoch)
            windows = encoded.drawn_windows(seed, epoch)
            plan = _plan(encoded.lengths[windows], rows_at, buckets, np.random.default_rng([seed, epoch]))
            for padded, chosen in plan[place:]:
                yield _batch(encoded, windows[chosen], rows_at(padded), padded)
                step += 1

    return _batches(batches, encoded, rows)


def evaluation_rows(batch_size: int) -> Callable[[int], int]:
    """Padded length → rows of a batch in evaluation.

    They depend on nothing but a text's own length, so that it gets alone what it gets among others. They are few, since
    the last batch of every length is filled up: one sentence costs as much as 16.
    """
    return lambda padded: min(batch_size, max(4, min(16, 1024 // padded // 4 * 4)))


def evaluation_batches(encoded: Encoded, batch_size: int, max_length: int) -> Batches:
    """Every window of every text once, in order of length, at most ``batch_size`` at a time."""
    rows_at = rows = evaluation_rows(batch_size)
    plan = _plan(encoded.lengths, rows_at, bucket_lengths(max_length), None)
    return _batches(
        lambda: (_batch(encoded, chosen, rows_at(padded), padded) for padded, chosen in plan), encoded, rows
    )


def answer_batches(encoded: Encoded, batch_size: int, max_length: int) -> Batches:
    """``evaluation_batches``, but the last batch of each length has only the next power of two rows.

    This saves time for few texts; the results differ from those of evaluation by rounding.
    """
    rows_at = evaluation_rows(batch_size)
    plan = _plan(encoded.lengths, rows_at, bucket_lengths(max_length), None)

    def batches() -> Iterator[Batch]:
        for padded, chosen in plan:
            size = min(rows_at(padded), 1 << (len(chosen) - 1).bit_length())
            yield _batch(encoded, chosen, size, padded)

    return _batches(batches, encoded, rows_at)


def sorted_batches(encoded: Encoded, rows: Rows, first: int = 0) -> Batches:
    """Every window once, the longest first, each batch padded to the length of its longest window's bucket.

    ``first`` is the number of windows to skip at the start.

    The shapes are few, because JAX compiles a function for each. The batch of a text depends on the other texts, so
    rounding may differ in the last bit.
    """
    rows_at = _function(rows)
    order = np.argsort(-encoded.lengths, kind="stable")
    buckets = bucket_lengths(int(encoded.lengths.max(initial=1)))

    def batches() -> Iterator[Batch]:
        start = first
        while start < len(order):
            padded = int(buckets[np.searchsorted(buckets, encoded.lengths[order[start]])])
            size = rows_at(padded)
            yield _batch(encoded, order[start : start + size], size, padded)
            start += size

    return _batches(batches, encoded, rows)
