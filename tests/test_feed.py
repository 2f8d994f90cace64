"""The feed: batches in order, errors where they happen, and a thread that ends with its user."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from training.feed import Batches, Spec, feed, filled_spec, filled_up, spec_of


class Batch(NamedTuple):
    x: Any
    mask: Any


def _batch(number: int, rows: int = 3) -> Batch:
    return Batch(np.full((rows, 2), number, np.float32), np.ones(rows, np.float32))


def _endless() -> Iterator[Batch]:
    number = 0
    while True:
        yield _batch(number)
        number += 1


def _feeders() -> int:
    return sum(thread.name == "feed" for thread in threading.enumerate())


def test_batches_come_in_order_and_the_thread_ends() -> None:
    with feed(Batches(_endless, spec_of(_batch(0)), ahead=3), lambda batch: batch.x[0, 0]) as walk:
        assert [next(walk) for _ in range(50)] == list(range(50))
        assert _feeders() == 1
    assert _feeders() == 0
    with feed(Batches(lambda: map(_batch, range(4)), spec_of(_batch(0)))) as walk:
        assert [batch.x[0, 0] for batch in walk] == [0, 1, 2, 3]
    assert _feeders() == 0


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    def failing() -> Iterator[Batch]:
        yield _batch(0)
        raise ValueError("no second batch")

    seen = []
    with pytest.raises(ValueError, match="no second batch"), feed(Batches(failing, spec_of(_batch(0)))) as walk:
        for batch in walk:
            seen.append(batch)
    assert len(seen) == 1 and _feeders() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, RuntimeError])
def test_the_thread_ends_however_the_block_is_left(error: type[BaseException]) -> None:
    with pytest.raises(error), feed(Batches(_endless, spec_of(_batch(0)), ahead=1)) as walk:
        next(walk)
        raise error
    assert _feeders() == 0


def test_rows_are_filled_up() -> None:
    batch = filled_up(_batch(7, rows=5), 4)
    assert batch.x.shape == (8, 2) and (batch.x == 7).all() and batch.mask.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    whole = _batch(7, rows=8)
    assert filled_up(whole, 4) is whole
    assert filled_spec(spec_of(_batch(0, 5)), 4) == Batch(Spec((8, 2), "float32"), Spec((8,), "float32"))
    assert filled_spec(Batch(Spec((None, 2), "float32"), Spec((None,), "float32")), 4).x.shape == (None, 2)


_PLAIN = """
import sys, traceback
sys.path.insert(0, {root!r})
from tests.test_feed import _batch, _endless
from training.feed import Batches, feed, spec_of
walk = feed(Batches(_endless, spec_of(_batch(0))), lambda batch: batch)
batches = walk.__enter__()  # never closed: as a user's error or a notebook leaves it
next(batches)
try:
    raise RuntimeError("kept")
except RuntimeError as error:
    kept = error
print("end", flush=True)
"""


def test_plain_python_ends_with_a_data_set_open(request: pytest.FixtureRequest) -> None:
    code = _PLAIN.format(root=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "end" in done.stdout, done.stderr[-500:]
