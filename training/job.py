"""What a package hands the engine: functions, never a subclass.

    loss_fn(batch, training, place) -> {"loss": [B], ...}     # one number per example

and batches whose ``mask`` [B] is 1 for an example and 0 for a filler row. Sums and counts travel apart and are divided
once, so a ragged last batch, any number of replicas and any number of shards give the same numbers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import keras

from training.backends import Placement
from training.config import TrainingConfig
from training.draws import Place
from training.feed import Batches
from training.optimizers import Optimizer, RateOf, make_optimizer

Figures = dict[str, float]


class Batch(Protocol):
    """What the engine needs of a batch: a NamedTuple of tensors with one row an example and a ``mask``."""

    mask: Any  # [B] float32

    def _replace(self, **changes: Any) -> "Batch": ...


class LossFn(Protocol):
    """Per-example loss and metrics of a batch, each [B]."""

    def __call__(self, batch: Any, training: bool, place: Place | None) -> dict[str, Any]:
        """``place`` is where in the run the batch is: all randomness follows from it; None in evaluation."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, on what, and how it is judged.

    Attributes:
        model: its trainable variables are updated.
        optimizer: built on ``model.trainable_variables``, in the strategy's scope.
        loss_fn: see the module's docstring.
        train: step → the endless data set of batches from that step on; a pure function, so that data resumes exactly.
        evaluate: () → figures on the validation split, those that are better when smaller as ``Cost``; called with the
            averaged weights where there are any.
        seed: of dropout and its like.
        rates: (mean figures, examples per second) → the figures to log in their place, such as tokens per second.
    """

    model: keras.Model
    optimizer: Optimizer
    loss_fn: LossFn
    train: Callable[[int], Batches]
    evaluate: Callable[[], Figures]
    seed: int = 0
    rates: Callable[[Figures, float], Figures] = lambda figures, examples_per_second: figures


def make_job(
    model: keras.Model,
    loss_fn: LossFn,
    train: Callable[[int], Batches],
    evaluate: Callable[[], Figures],
    placement: Placement,
    training: TrainingConfig,
    seed: int,
    rates: Callable[[Figures, float], Figures] = lambda figures, examples_per_second: figures,
    rate_of: RateOf = lambda variable: 1.0,
    epsilon: float = 1e-6,
) -> Job:
    """A job with the optimizer of its configuration, built where it runs: the one way in which jobs are assembled.

    Args:
        model, loss_fn, train, evaluate, seed, rates: see ``Job``.
        placement: where it runs.
        training: how, with the number of steps that ``resolved`` gives.
        rate_of, epsilon: see ``make_optimizer``.
    """
    with placement.scope():
        optimizer = make_optimizer(training, training.num_steps, rate_of, epsilon)
        optimizer.build(model.trainable_variables)
    return Job(model, optimizer, loss_fn, train, evaluate, seed, rates)
