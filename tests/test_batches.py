from itertools import islice

import numpy as np
import pytest

from text_cls.batches import (
    bucket_lengths,
    evaluation_batches,
    sorted_batches,
    steps_per_epoch,
    token_budget,
    training_batches,
)
from text_cls.tokens.encoding import Encoded

LENGTHS = np.random.default_rng(0).integers(1, 60, 101)


@pytest.fixture
def encoded() -> Encoded:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids = np.concatenate([np.full(n, 10 + i) for i, n in enumerate(LENGTHS)]).astype(np.int32)
    return Encoded(ids, offsets, (np.arange(101) % 3).astype(np.int32))


def _check(batch, encoded: Encoded) -> None:
    for tokens, label, row, mask in zip(*(np.asarray(x) for x in batch), strict=True):
        assert mask == (row >= 0)
        if mask:
            assert label == encoded.labels[row]
            assert (tokens[: LENGTHS[row]] == 10 + row).all() and not tokens[LENGTHS[row] :].any()


def test_an_epoch_has_every_example_once(encoded: Encoded) -> None:
    steps = steps_per_epoch(encoded, 8)
    assert steps == 13
    epochs = [[], []]
    for step, batch in enumerate(islice(training_batches(encoded, 8, seed=1), 2 * steps)):
        _check(batch, encoded)
        assert batch.tokens.shape[0] == 8
        epochs[step // steps].append(np.asarray(batch.row))
    for rows in epochs:
        real = np.concatenate(rows)
        assert sorted(real[real >= 0]) == list(range(101))
        assert sum((r < 0).any() for r in rows) == 1  # one ragged batch
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


def test_the_stream_is_a_function_of_the_step(encoded: Encoded) -> None:
    whole = list(islice(training_batches(encoded, 8, seed=1), 30))
    for first in (1, 13, 20):
        part = list(islice(training_batches(encoded, 8, 1, first), 30 - first))
        for one, two in zip(whole[first:], part, strict=True):
            np.testing.assert_array_equal(one.tokens, two.tokens)
    other = next(iter(training_batches(encoded, 8, seed=2)))
    assert not np.array_equal(other.row, whole[0].row)


def test_evaluation_pads_each_text_to_its_own_bucket(encoded: Encoded) -> None:
    buckets = bucket_lengths(64)
    rows = []
    for batch in evaluation_batches(encoded, 8, 64):
        _check(batch, encoded)
        real = np.asarray(batch.row)[np.asarray(batch.row) >= 0]
        assert (buckets[np.searchsorted(buckets, LENGTHS[real])] == batch.tokens.shape[1]).all()
        rows += real.tolist()
    assert sorted(rows) == list(range(101))


def test_bucket_lengths() -> None:
    assert bucket_lengths(40).tolist() == [8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert bucket_lengths(5).tolist() == [5]
    lengths = bucket_lengths(512)
    assert lengths[-1] == 512 and (np.diff(lengths) <= np.maximum(4, lengths[:-1] / 8)).all()


def test_a_token_budget_is_kept(encoded: Encoded) -> None:
    rows = token_budget(128)
    assert [rows(n) for n in (8, 20, 60, 64, 65, 200)] == [16, 6, 2, 2, 1, 1]
    steps = steps_per_epoch(encoded, rows)
    for epoch in range(2):
        seen = []
        for batch in islice(training_batches(encoded, rows, 1, epoch * steps), steps):
            _check(batch, encoded)
            assert batch.tokens.shape[0] == rows(batch.tokens.shape[1])
            seen.append(np.asarray(batch.row))
        real = np.concatenate(seen)
        assert sorted(real[real >= 0]) == list(range(101))


def test_sorted_batches(encoded: Encoded) -> None:
    whole = list(sorted_batches(encoded, 8))
    seen = []
    for batch in whole:
        _check(batch, encoded)
        real = np.asarray(batch.row)[np.asarray(batch.mask) > 0]
        assert batch.tokens.shape[1] == min(n for n in bucket_lengths(LENGTHS.max()) if n >= LENGTHS[real].max())
        seen += real.tolist()
    assert sorted(seen) == list(range(101))
    assert (np.diff(LENGTHS[seen]) <= 0).all()
    for one, two in zip(whole[5:], sorted_batches(encoded, 8, 40), strict=True):
        np.testing.assert_array_equal(one.row, two.row)
