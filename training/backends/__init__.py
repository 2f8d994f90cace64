"""The differences between TensorFlow and JAX behind one interface: one file for each, chosen by ``KERAS_BACKEND``.

A backend's file has the functions of ``Backend`` and makes ``Placement``s. No other code of the engine depends on which
backend it is.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import keras
import numpy as np

from files.errors import UserError
from training import BACKENDS

if TYPE_CHECKING:
    from training.config import TrainingConfig
    from training.draws import Place
    from training.job import Job

Sums = dict[str, Any]  # of every figure of a step over the batch, with their ``count``; on the device
Function = Callable[[Any], dict[str, Any]]  # batch → {name: [B, ...]}


class TrainStep(NamedTuple):
    """Compiled updates of the weights.

    Attributes:
        prepare: batch of arrays → item of the iterator that ``run`` takes; called in the thread of the feed.
        run: (iterator over prepared batches, number of earlier updates, number of updates, sums so far) → sums. It adds
            the values of ``loss_fn``, ``count`` and the gradient norm before clipping to the sums.
    """

    prepare: Callable[[Any], Any]
    run: Callable[[Iterator[Any], int, int, Sums], Sums]


class Map(NamedTuple):
    """A compiled function of batches.

    Attributes:
        prepare: batch of arrays → argument of ``run``; called in the thread of the feed.
        run: prepared batch → {name: array}, the rows of all hosts in the order of the batch, with ``mask``.
    """

    prepare: Callable[[Any], Any]
    run: Callable[[Any], dict[str, np.ndarray]]


class Placement(Protocol):
    """Where a job runs.

    Attributes:
        replicas: number of parts of a batch on different devices, over all hosts.
        shards: number of parts of a replica's batch that run in parallel.
    """

    @property
    def replicas(self) -> int: ...

    @property
    def shards(self) -> int: ...

    def scope(self) -> AbstractContextManager[Any]:
        """Variables that are created inside can be used in all replicas."""

    def train_step(self, job: "Job", training: "TrainingConfig", spec: Any) -> TrainStep:
        """Compiles the update of a job for batches of this spec, whose rows can be divided equally into all parts."""

    def map(self, function: Function, spec: Any) -> Map:
        """Compiles a function of batches of this spec; its random numbers are those of the step ``EVALUATION``."""


class Rows(Protocol):
    """The rows of a table that a batch used."""

    def take(self, table: Any) -> Any:
        """Those rows, or all of them."""

    def put(self, table: Any, values: Any) -> None:
        """Assigns values of the shape that ``take`` returns to those rows only."""


class RowGradient(NamedTuple):
    """The gradient of a table by rows: ``values`` [n, D] for the rows that ``rows.take`` returns, 0 elsewhere."""

    rows: Rows
    values: Any


class Backend(Protocol):
    """The functions of a backend's file."""

    def make_placement(self, kind: str, count: int | None, shards: int) -> Placement:
        """See ``training.placement.make_placement``; ``kind`` is auto, cpu or gpu, ``count`` of devices."""

    def exchange(self, text: str) -> list[str]:
        """The texts of all hosts of the job, in the hosts' order; every host must call it."""

    def failure_of_another(self, error: BaseException) -> str | None:
        """The message about another host's failure if it caused ``error``; None otherwise."""

    def leave(self, message: str) -> None:
        """Ends this host without waiting for the others; they fail when they next wait for it, with its message."""

    def tf32(self) -> bool:
        """Whether float32 products are rounded to TensorFloat-32 on devices that support it."""

    def products(self, tf32: bool) -> AbstractContextManager[None]:
        """Inside, ``tf32`` switches this rounding on or off."""

    def deterministic(self) -> AbstractContextManager[None]:
        """Inside, operations on GPUs give the same results in every run."""

    def compiled(self, function: Callable) -> Callable:
        """A function of tensors, compiled. Each call uses the present values of the variables that it reads."""

    def with_gradient(self, function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
        """x → ``function(x)`` and the gradient of its sum with respect to x."""

    def words(self, shape: Any, place: "Place", stream: int) -> Any:
        """[B, …] uint32: see ``training.draws``."""

    def rows_of(self, gradient: Any, variable: Any) -> RowGradient | None:
        """The gradient of an embedding table by rows; None for other variables."""

    def dense(self, gradient: Any) -> Any:
        """The gradient as one tensor of the variable's shape."""

    def apply_adam(
        self, variable: Any, m: Any, v: Any, gradient: Any, rate: Any, powers: tuple[Any, Any],
        betas: tuple[float, float], epsilon: float,
    ) -> None:  # fmt: skip
        """Adam's update of a whole variable and its moments; ``powers`` are β₁ᵗ and β₂ᵗ."""


@cache
def backend() -> Backend:
    """The functions for the backend that Keras uses.

    Raises:
        UserError: the engine does not support this backend.
    """
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={name}: tasks run on {' or '.join(BACKENDS)}; set it to one of them")
    return cast(Backend, importlib.import_module(f"training.backends.{name}"))
