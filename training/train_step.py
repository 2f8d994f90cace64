"""Updates of the weights, on any backend."""

from typing import Any

from training.backends import Placement, TrainStep
from training.config import TrainingConfig
from training.feed import filled_up
from training.job import Job
from training.placement import multiple_of


def make_train_step(job: Job, placement: Placement, training: TrainingConfig, spec: Any) -> TrainStep:
    """Compiles the update of a job for batches of this ``spec``.

    If batches differ in their number of rows, filler rows are added so that all parts of a batch have equal size.
    """
    multiple = multiple_of(placement, training.accumulate) if spec.mask.shape[0] is None else 1
    step = placement.train_step(job, training, spec)
    return step._replace(prepare=lambda batch: step.prepare(filled_up(batch, multiple)))
