"""Random numbers of a step, row by row of the global batch.

Layers draw with ``uniform`` or ``kept``. While the engine trains or evaluates, the numbers of a row are a function of
(seed, step, row of the global batch) and of the number of earlier draws in the call; they do not depend on shards,
micro-batches, replicas or hosts. Outside the engine, in plain Keras, the layer's own generator draws.

The generator is counter-based (Philox 4×32-10, Salmon et al. 2011), so every backend gives the same numbers.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import ops

EVALUATION = -1  # the step of evaluations: each draws the same numbers


class Place(NamedTuple):
    """The position of a model's call in a run and in a batch."""

    seed: Any  # of the run
    step: Any  # number of updates before the call, or EVALUATION
    row: Any = 0  # number of the call's first example in the global batch


class _Scope(threading.local):
    """The current place, one per thread: replicas are traced in threads of their own."""

    place: Place | None = None
    calls: int = 0


_SCOPE = _Scope()


@contextmanager
def drawing_at(place: Place | None) -> Iterator[None]:
    """Inside, draws are for the rows from ``place`` on; with None the layers' own generators draw."""
    before = _SCOPE.place, _SCOPE.calls
    _SCOPE.place, _SCOPE.calls = place, 0
    try:
        yield
    finally:
        _SCOPE.place, _SCOPE.calls = before


def uniform(shape: Any, seed: Any) -> Any:
    """[B, …] float32 in [0, 1); in the engine, multiples of 2⁻²⁴.

    Args:
        shape: the first dimension is the rows of the batch.
        seed: Keras' seed or generator, for calls outside the engine.
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

    One 32-bit word is drawn for four values; ``shape`` and ``seed`` as in ``uniform``.
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
    """[B, …] uint32: the rows from ``place.row`` on of one array for the whole batch.

    Every row starts at its own count, so rows can be drawn without the rows before them: block b of row r has the
    counter (r · blocks per row + b, step), two words of 64 bits, and the key (seed, stream), two words of 32 bits.

    Args:
        shape: a tuple of integers and scalars.
        place: seed (32 bits), step and row.
        stream: number of the draw in the call.
    """
    from training.backends import backend

    return backend().words(shape, place, stream)


def to_unit(word: Any) -> Any:
    """The upper 24 bits as float32 in [0, 1). A backend's own conversion may give other floats under XLA."""
    return ops.cast(ops.right_shift(word, ops.convert_to_tensor(8, "uint32")), "float32") * 2.0**-24


def is_kept(word: Any, rate: float) -> Any:
    """False with probability ``rate``."""
    return word >= ops.convert_to_tensor(min(round(rate * 2.0**32), 2**32 - 1), "uint32")


def _next_draw() -> tuple[Place, int] | None:
    """The place and the number of earlier draws; None outside the engine, where the layer's own generator draws."""
    if _SCOPE.place is None:
        return None
    stream, _SCOPE.calls = _SCOPE.calls, _SCOPE.calls + 1
    return _SCOPE.place, stream
