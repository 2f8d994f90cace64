"""The job that a package gives the engine: functions, never a subclass.

    loss_fn(batch, training, place) -> {"loss": [B], ...}     # one number per example

Batches have a ``mask`` [B], 1 for an example and 0 for a filler row. The engine adds up sums and counts separately and
divides once, so a ragged last batch and any number of replicas or shards give the same numbers.
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
    """The engine's view of a batch: a NamedTuple of tensors with one row per example, and a ``mask``."""

    mask: Any  # [B] float32

    def _replace(self, **changes: Any) -> "Batch": ...


class LossFn(Protocol):
    """Per-example loss and metrics of a batch, each [B]."""

    def __call__(self, batch: Any, training: bool, place: Place | None) -> dict[str, Any]:
        """``place`` is the batch's position in the run, which determines all random numbers; None in evaluation."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A model with its loss, its data and its evaluation.

    Attributes:
        model: its trainable variables are updated.
        optimizer: built on ``model.trainable_variables``, in the strategy's scope.
        loss_fn: see the module's docstring.
        train: step → the endless data set of batches from that step on; a pure function, so that data resumes exactly.
        evaluate: () → figures on the validation split, as ``Cost`` if smaller is better; called with the averaged
            weights if there are any.
        seed: of dropout and other random numbers.
        rates: (mean figures, examples per second) → the figures to log instead, with tokens per second, for example.
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
    """A job with the optimizer of its configuration, built on its devices; all jobs are made by this function.

    Args:
        model, loss_fn, train, evaluate, seed, rates: see ``Job``.
        placement: where it runs.
        training: the configuration after ``resolved``, which fills in the number of steps.
        rate_of, epsilon: see ``make_optimizer``.
    """
    with placement.scope():
        optimizer = make_optimizer(training, training.num_steps, rate_of, epsilon)
        optimizer.build(model.trainable_variables)
    return Job(model, optimizer, loss_fn, train, evaluate, seed, rates)
