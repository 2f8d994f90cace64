"""Random numbers of a step, row by row of the global batch.

Layers that draw ask ``uniform`` or ``kept``. While the engine trains or evaluates, what a row gets is a function of
(seed, step, row of the global batch) and of how many draws came before: shards, micro-batches, replicas and hosts
change nothing. Elsewhere, in plain Keras, the layer's own generator draws.

The numbers are those of a counter-based generator (Philox 4×32-10, Salmon et al. 2011), the same on every backend.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import ops

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
    """[B, …] float32 in [0, 1); in the engine multiples of 2⁻²⁴.

    Args:
        shape: its first dimension are the rows of the batch.
        seed: Keras' seed or generator, for calls outside of the engine.
    """
    at = _next_draw()
    if at is None:
        return keras.random.uniform(shape, dtype="float32", seed=seed)
    return to_unit(words(shape, *at))


def kept(shape: Any, rate: float, seed: Any) -> Any:
    """[B, …] bool, False with probability ``rate``; ``shape`` and ``seed`` as in ``uniform``."""
    at = _next_draw()
    if at is None:
        return keras.random.uniform(shape, dtype="float32", seed=seed) >= rate
    return is_kept(words(shape, *at), rate)


def kept_in_256(shape: Any, dropped: int, seed: Any) -> Any:
    """[B, …] bool, False with probability ``dropped`` / 256, at a quarter of the cost of ``kept``.

    A word of 32 bits is drawn for four values; ``shape`` and ``seed`` as in ``uniform``.
    """
    at = _next_draw()
    if at is None:
        return keras.random.uniform(shape, dtype="float32", seed=seed) >= dropped / 256
    rows, *rest = shape
    size = math.prod(rest)
    quarters = words((rows, -(-size // 4)), *at)
    bytes_of = ops.reshape(ops.view(quarters, "uint8"), (rows, -1))[:, :size]
    return ops.reshape(bytes_of, shape) >= ops.convert_to_tensor(dropped, "uint8")


def words(shape: Any, place: Place, stream: int) -> Any:
    """[B, …] uint32: the part of one array for the whole batch that begins at row ``place.row``.

    Every row begins at a count of its own, so that a part can be drawn without what comes before it: block b of row r
    has the counter (r · blocks of a row + b, step) and the key (seed, stream), each of two words of 64 bits and of 32.

    Args:
        shape: a tuple of integers and scalars.
        place: seed (32 bits), step and row.
        stream: number of the draw in its step.
    """
    from training.backends import backend

    return backend().words(shape, place, stream)


def to_unit(word: Any) -> Any:
    """The upper 24 bits as float32 in [0, 1); a backend's own floats may be others where XLA compiles."""
    return ops.cast(ops.right_shift(word, ops.convert_to_tensor(8, "uint32")), "float32") * 2.0**-24


def is_kept(word: Any, rate: float) -> Any:
    """False with probability ``rate``."""
    return word >= ops.convert_to_tensor(min(round(rate * 2.0**32), 2**32 - 1), "uint32")


def _next_draw() -> tuple[Place, int] | None:
    """Where the call is and how many draws came before; None where the layer's own generator draws."""
    if _SCOPE.place is None:
        return None
    stream, _SCOPE.calls = _SCOPE.calls, _SCOPE.calls + 1
    return _SCOPE.place, stream
