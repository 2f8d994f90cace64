"""Arrays that are filled part by part: what an interruption leaves, and where the next call resumes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from files.arrays import GrowingArray

ROWS = np.arange(14, dtype=np.float32).reshape(7, 2)


def _parts(start: int, stop: int) -> Iterator[np.ndarray]:
    for first in range(start, stop, 2):
        yield ROWS[first : first + 2]
    if stop < len(ROWS):
        raise KeyboardInterrupt


def test_an_interruption_loses_what_was_not_saved(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {}).fill(_parts(0, 6), 2, told.append)
    file = GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {})
    assert told == [2, 4, 6] and file.done == 4  # saved after every second part
    file.fill(_parts(file.done, 7), 2, told.append)
    assert told == [2, 4, 6, 6, 7] and file.done == 7
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ROWS)
    assert GrowingArray(tmp_path / "a.npy", (7, 2), "float32", {}).done == 7
