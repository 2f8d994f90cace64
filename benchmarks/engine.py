"""Our side of a comparison of training speeds."""

from typing import TYPE_CHECKING, Any

from benchmarks.turns import Turn

if TYPE_CHECKING:
    from training.backends import Placement
    from training.config import TrainingConfig
    from training.job import Job

_OPEN: list[Any] = []  # until the process ends


def training_turn(job: "Job", placement: "Placement", training: "TrainingConfig", steps: int) -> Turn:
    """A turn takes the next ``steps`` steps, with the engine's own feed and train step, as ``fit`` does."""
    from training.feed import feed
    from training.train_step import make_train_step

    batches = job.train(0)
    step = make_train_step(job, placement, training, batches.spec)
    walk = feed(batches, step.prepare)
    _OPEN.append(walk)  # a feed that nobody holds is closed
    stream, firsts = walk.__enter__(), iter(range(0, 10**9, steps))

    def turn() -> int:
        return int(step.run(stream, next(firsts), steps, {})["count"])

    return turn
