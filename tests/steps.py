"""Updates of a job by the engine, without the loop."""

from collections.abc import Iterable
from typing import Any

from training.backends import Placement
from training.config import TrainingConfig
from training.feed import spec_of
from training.job import Job
from training.train_step import make_train_step


def take_steps(
    job: Job, placement: Placement, batches: Iterable[Any], spec: Any = None, training: TrainingConfig | None = None
) -> list[dict[str, float]]:
    """One update a batch of arrays; returns the sums of each."""
    batches = list(batches)
    step = make_train_step(job, placement, training or TrainingConfig(), spec or spec_of(batches[0]))
    found = []
    for number, batch in enumerate(batches):
        sums = step.run(iter([step.prepare(batch)]), number, 1, {})
        found.append({name: float(value) for name, value in sums.items()})
    return found
