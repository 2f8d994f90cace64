"""Random numbers of a step, row by row of the global batch.

Layers that draw ask ``uniform`` or ``kept``. While the engine trains or evaluates, what a row gets is a function of
(seed, step, row of the global batch) and of how many draws came before: shards, micro-batches, replicas and hosts
change nothing. Elsewhere, in plain Keras or on another backend, the layer's own generator draws.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

EVALUATION = -1  # in place of the step: an evaluation draws the same every time


class Place(NamedTuple):
    """Where in a run, and in its batch, a call of a model is."""

    seed: Any  # of the run
    step: Any  # updates before it, or EVALUATION
    row: Any = 0  # of the call's first example, in the global batch


class _Scope(threading.local):
    """Of each thread, since replicas are traced in threads of their own."""

    place: Place | None = None
    calls: int = 0


_SCOPE = _Scope()


@contextmanager
def drawing_at(place: Place | None) -> Iterator[None]:
    """Inside, draws are for the rows that begin at ``place``; None: as outside of any."""
    before = _SCOPE.place, _SCOPE.calls
    _SCOPE.place, _SCOPE.calls = place, 0
    try:
        yield
    finally:
        _SCOPE.place, _SCOPE.calls = before


def uniform(shape: Any, seed: Any) -> Any:
    """[B, …] float32 in [0, 1).

    Args:
        shape: its first dimension are the rows of the batch.
        seed: Keras' seed or generator, for calls outside of the engine.
    """
    at = _next_draw()
    if at is None:
        return keras.random.uniform(shape, dtype="float32", seed=seed)
    from training import philox

    return philox.uniform(shape, *at)


def kept(shape: Any, rate: float, seed: Any) -> Any:
    """[B, …] bool, False with probability ``rate``; ``shape`` and ``seed`` as in ``uniform``."""
    at = _next_draw()
    if at is None:
        return keras.random.uniform(shape, dtype="float32", seed=seed) >= rate
    from training import philox

    return philox.kept(shape, rate, *at)


def _next_draw() -> tuple[Place, int] | None:
    """Where the call is and how many draws came before; None where the layer's own generator draws."""
    if _SCOPE.place is None or keras.backend.backend() != "tensorflow":
        return None
    stream, _SCOPE.calls = _SCOPE.calls, _SCOPE.calls + 1
    return _SCOPE.place, stream
