"""The cost of one training step, measured by running it."""

import itertools
import math
import time
from typing import NamedTuple

import keras
import numpy as np

from training.backends import Placement
from training.config import TrainingConfig
from training.feed import feed
from training.job import Job
from training.train_step import make_train_step


class FirstStep(NamedTuple):
    """The sums of a step's figures, and its cost as text."""

    sums: dict[str, float]
    cost: str


def first_step(job: Job, placement: Placement, training: TrainingConfig) -> FirstStep:
    """Trains twice on one batch; the first step includes the compilation. This changes the model."""
    batches = job.train(0)
    step = make_train_step(job, placement, training, batches.spec)
    with feed(batches, step.prepare) as walk:
        batch = next(walk)
    start = time.monotonic()
    first = {name: float(value) for name, value in step.run(iter([batch]), 0, 1, {}).items()}
    compiled = time.monotonic()
    for value in step.run(iter([batch]), 1, 1, {}).values():
        float(value)
    seconds, before = time.monotonic() - compiled, compiled - start
    state = sum(_bytes(variable) for variable in itertools.chain(job.model.variables, job.optimizer.variables))
    return FirstStep(
        first,
        f"{seconds:.2f} s (the first {before:.1f} s, with its compilation), "
        f"loss {first['loss'] / first['count']:.4f}; {state / 2**20:,.0f} MiB of weights and optimizer state",
    )


def _bytes(variable: keras.Variable) -> int:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return math.prod(variable.shape) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
