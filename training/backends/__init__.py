"""What differs between TensorFlow and JAX, behind one interface: one file a backend, chosen by ``KERAS_BACKEND``.

A backend's file has the functions of ``Backend`` and makes ``Placement``s. Nothing else in the project asks which one
it is.
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
    """Updates of the weights.

    Attributes:
        prepare: a batch of arrays → what ``run`` walks through; called in the thread of the feed.
        run: (prepared batches, updates before, number of updates, sums so far) → sums, after so many updates. Values of
            ``loss_fn``, ``count``, and the gradient norm before clipping are added to the sums.
    """

    prepare: Callable[[Any], Any]
    run: Callable[[Iterator[Any], int, int, Sums], Sums]


class Map(NamedTuple):
    """A compiled function of batches.

    Attributes:
        prepare: a batch of arrays → what ``run`` takes; called in the thread of the feed.
        run: → {name: array}, the rows of all hosts in the order of the batch, with ``mask``.
    """

    prepare: Callable[[Any], Any]
    run: Callable[[Any], dict[str, np.ndarray]]


class Placement(Protocol):
    """Where a job runs.

    Attributes:
        replicas: parts of a batch on different devices, over all hosts.
        shards: parts of a replica's batch, run side by side.
    """

    @property
    def replicas(self) -> int: ...

    @property
    def shards(self) -> int: ...

    def scope(self) -> AbstractContextManager[Any]:
        """Variables that are made inside can be used in all replicas."""

    def train_step(self, job: "Job", training: "TrainingConfig", spec: Any) -> TrainStep:
        """Compiles the update of a job, for batches of this spec whose rows can be cut up for all parts."""

    def map(self, function: Function, spec: Any) -> Map:
        """Compiles a function of batches of this spec, which draws as ``EVALUATION`` does."""


class Rows(Protocol):
    """The rows of a table that a batch used."""

    def take(self, table: Any) -> Any:
        """Those rows, or all of them."""

    def put(self, table: Any, values: Any) -> None:
        """Assigns what ``take`` gave to those rows alone."""


class RowGradient(NamedTuple):
    """The gradient of a table whose other rows have none: ``values`` [n, D] of what ``rows.take`` gives."""

    rows: Rows
    values: Any


class Backend(Protocol):
    """The functions of a backend's file."""

    def make_placement(self, kind: str, count: int | None, shards: int) -> Placement:
        """See ``training.placement.make_placement``; ``kind`` is auto, cpu or gpu, ``count`` of devices."""

    def exchange(self, text: str) -> list[str]:
        """What every host of the job gives, in the hosts' order; all of them must call it."""

    def failure_of_another(self, error: BaseException) -> str | None:
        """What is known of another host's failure, if that is what an error of this one comes from."""

    def leave(self, message: str) -> None:
        """This host ends, and waits for no other; they fail when they next wait for it, with its message if any."""

    def tf32(self) -> bool:
        """Whether products of float32 are rounded to TensorFloat-32, where the device can."""

    def products(self, tf32: bool) -> AbstractContextManager[None]:
        """Inside, they are rounded so, or they never are."""

    def deterministic(self) -> AbstractContextManager[None]:
        """Inside, operations are repeatable on GPUs too."""

    def compiled(self, function: Callable) -> Callable:
        """A function of tensors, compiled."""

    def with_gradient(self, function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
        """x → ``function(x)`` and the gradient of its sum with regard to x."""

    def words(self, shape: Any, place: "Place", stream: int) -> Any:
        """[B, …] uint32: see ``training.draws``."""

    def rows_of(self, gradient: Any, variable: Any) -> RowGradient | None:
        """The gradient of an embedding's table by rows; None for any other."""

    def dense(self, gradient: Any) -> Any:
        """The gradient as one tensor of the variable's shape."""

    def apply_adam(
        self, variable: Any, m: Any, v: Any, gradient: Any, rate: Any, powers: tuple[Any, Any],
        betas: tuple[float, float], epsilon: float,
    ) -> None:  # fmt: skip
        """Adam's update of a whole variable and its moments; ``powers`` are β₁ᵗ and β₂ᵗ."""


@cache
def backend() -> Backend:
    """The one that Keras runs on.

    Raises:
        UserError: the engine has none for it.
    """
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={name}: tasks run on {' or '.join(BACKENDS)}; set it to one of them")
    return cast(Backend, importlib.import_module(f"training.backends.{name}"))
