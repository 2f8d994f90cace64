import math

import numpy as np
import pytest

from files.errors import UserError
from training.learning_rate import Schedule
from training.schedules import SHAPES


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]),
        ("noam", [0.25, 0.5, 0.75, 1.0, *(math.sqrt(4 / n) for n in (5, 6, 7, 8, 9))]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_by_hand(shape: str, expected: list[float]) -> None:
    schedule = Schedule(shape, peak=2.0, warmup_steps=4, total_steps=8)
    assert np.allclose([float(schedule(step)) for step in range(9)], 2.0 * np.array(expected), atol=1e-6)


def test_no_warmup_starts_at_the_peak() -> None:
    assert float(Schedule("linear", 3.0, 0, 10)(0)) == pytest.approx(3.0)


def test_unknown_shape() -> None:
    with pytest.raises(UserError, match="'steps' is not known: use one of linear, cosine"):
        Schedule("steps", 1.0, 0, 1)


def test_the_ends_of_the_shapes() -> None:
    """One step after warm-up, no warm-up, and steps beyond the last."""
    for shape in ("linear", "cosine"):
        assert float(SHAPES[shape](np.float32(4), 3.0, 4.0)) == pytest.approx(0.0, abs=1e-6)
        assert float(SHAPES[shape](np.float32(12), 4.0, 8.0)) == pytest.approx(0.0, abs=1e-6)
    assert [float(SHAPES["noam"](np.float32(step), 0.0, 8.0)) for step in (0, 3)] == pytest.approx([1.0, 0.5])
