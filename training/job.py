"""What a package hands the engine: functions, never a subclass.

    loss_fn(batch, training, place) -> {"loss": [B], "accuracy": [B], ...}     # one number per example

and batches whose ``mask`` [B] is 1 for an example and 0 for a filler row. Sums and counts travel apart and are divided
once, so a ragged last batch, any number of replicas and any number of shards give the same numbers.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import keras
import tensorflow as tf

from training.config import TrainingConfig
from training.draws import Place
from training.feed import Batches
from training.optimizers import Optimizer, RateOf, make_optimizer
from training.strategy import Placement

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
    with placement.strategy.scope():
        optimizer = make_optimizer(training, training.num_steps, rate_of, epsilon)
        optimizer.build(model.trainable_variables)
    return Job(model, optimizer, loss_fn, train, evaluate, seed, rates)


def to_device(batch: Any, placement: Placement) -> Any:
    """A batch of arrays as tensors: on the device, or on the host where several devices will get parts of it."""
    with tf.device("CPU:0" if placement.strategy.num_replicas_in_sync > 1 else None):
        return type(batch)(*map(tf.convert_to_tensor, batch))


def tensor_specs(spec: Any) -> Any:
    """Our specs of a batch as TensorFlow's."""
    return type(spec)(*(tf.TensorSpec(field.shape, field.dtype) for field in spec))


def multiple_of(placement: Placement, micro_batches: int = 1) -> int:
    """Rows must be a multiple of this to be cut up for all replicas, micro-batches and shards."""
    return placement.strategy.num_replicas_in_sync * placement.shards * micro_batches


def part_of(batch: Any, replica: Any, replicas: int) -> Any:
    """The rows of one replica; they are cut out on the host, so that no device gets more."""
    if replicas == 1:
        return batch
    with tf.device("CPU:0"):
        rows = tf.shape(batch.mask)[0] // replicas
        fixed = batch.mask.shape[0] and batch.mask.shape[0] // replicas
        parts = [field[replica * rows : (replica + 1) * rows] for field in batch]
    return type(batch)(*(tf.ensure_shape(part, [fixed, *part.shape[1:]]) for part in parts))


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Cuts every tensor of a batch into ``parts`` equal ranges of rows."""
    if parts == 1:
        return [batch]
    fields = [tf.split(field, parts) for field in batch]
    return [type(batch)(*rows) for rows in zip(*fields, strict=True)]


def shards_of(batch: Any, shards: int, micro_batches: int = 1) -> int:
    """The greatest number that divides both ``shards`` and the rows of a micro-batch.

    Batches whose number of rows differs are filled up to ``multiple_of``.
    """
    rows = batch.mask.shape[0]
    return shards if rows is None else math.gcd(shards, rows // micro_batches)
