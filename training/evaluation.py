"""Functions of batches over whole data sets, on any devices."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from training.backends import Map, Placement
from training.feed import Batches, feed, filled_spec, filled_up
from training.placement import multiple_of


def make_mapper(function: Callable[[Any], dict[str, Any]], placement: Placement, at_once: int = 1) -> Callable:
    """Compiles a function of batches into: data set → iterator over {name: array}, one item for each batch.

    Filler rows are dropped; the order is that of the data set.

    Args:
        function: batch → {name: [B, ...]}.
        placement: where it runs.
        at_once: number of batches that run in parallel if there is one replica, because a small batch does not fill two
            cores. The numbers are the same.
    """
    multiple = multiple_of(placement)
    at_once = at_once if placement.replicas == 1 else 1

    @cache
    def compiled(spec: Any) -> Map:
        return placement.map(function, spec)

    def stream(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
        values_of = compiled(filled_spec(batches.spec, multiple))
        with feed(batches, lambda batch: values_of.prepare(filled_up(batch, multiple))) as walk:
            for arrays in _run(values_of, iter(walk), at_once):
                real = arrays.pop("mask") > 0
                yield {name: array[real] for name, array in arrays.items()}

    return stream


def _run(values_of: Map, batches: Iterator[Any], at_once: int) -> Iterator[dict[str, np.ndarray]]:
    """The values of every batch, in order."""
    first = next(batches, None)
    if first is not None:
        yield values_of.run(first)  # traces the function in this thread, which has Keras' settings
    if at_once == 1:
        yield from map(values_of.run, batches)
        return
    with ThreadPoolExecutor(at_once) as pool:
        running: deque[Future] = deque()
        for batch in batches:
            running.append(pool.submit(values_of.run, batch))
            if len(running) == at_once:
                yield running.popleft().result()
        yield from (one.result() for one in running)


def make_evaluator(function: Callable[[Any], dict[str, Any]], placement: Placement, at_once: int = 1) -> Callable:
    """As ``make_mapper``, but collected: data set → {name: array with one row for each example}."""
    stream = make_mapper(function, placement, at_once)

    def evaluate(batches: Batches) -> dict[str, np.ndarray]:
        parts = list(stream(batches))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return evaluate
