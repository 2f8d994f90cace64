"""What one step of a job costs, found by taking it."""

import time
from typing import NamedTuple

import tensorflow as tf

from training.config import TrainingConfig
from training.feed import feed
from training.job import Job
from training.strategy import Placement
from training.train_step import make_train_step, preparation


class FirstStep(NamedTuple):
    """What a step summed up, and what it cost, as a phrase."""

    sums: dict[str, float]
    cost: str


def first_step(job: Job, placement: Placement, training: TrainingConfig) -> FirstStep:
    """Takes one step, which changes the model."""
    batches = job.train(0)
    train_step = make_train_step(job, placement, training, batches.spec)
    with feed(batches, preparation(batches, placement, training)) as walk:
        batch = next(walk)
    start = time.monotonic()
    train_step.get_concrete_function(batch, tf.constant(0, tf.int64))
    traced = time.monotonic()
    sums = {name: float(value) for name, value in train_step(batch, tf.constant(0, tf.int64)).items()}
    seconds = time.monotonic() - traced
    state = sum(v.value.dtype.size * int(tf.size(v.value)) for v in (*job.model.variables, *job.optimizer.variables))
    return FirstStep(
        sums,
        f"{seconds:.2f} s (the first, after {traced - start:.1f} s of tracing), "
        f"loss {sums['loss'] / sums['count']:.4f}; {state / 2**20:,.0f} MiB of weights and optimizer state",
    )
