"""Functions of batches over whole data sets, on any devices."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from training.backends import Map, Placement
from training.feed import Batches, feed, filled_spec, filled_up
from training.placement import multiple_of


def make_mapper(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """Compiles ``function(batch) -> {name: [B, ...]}`` into data set → a stream of {name: array}, one a batch.

    Filler rows are dropped; the order is the data set's.
    """
    multiple = multiple_of(placement)

    @cache
    def compiled(spec: Any) -> Map:
        return placement.map(function, spec)

    def stream(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
        values_of = compiled(filled_spec(batches.spec, multiple))
        with feed(batches, lambda batch: values_of.prepare(filled_up(batch, multiple))) as walk:
            for batch in walk:
                arrays = values_of.run(batch)
                real = arrays.pop("mask") > 0
                yield {name: array[real] for name, array in arrays.items()}

    return stream


def make_evaluator(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """``make_mapper``, collected: data set → {name: array with one row an example}."""
    stream = make_mapper(function, placement)

    def evaluate(batches: Batches) -> dict[str, np.ndarray]:
        parts = list(stream(batches))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return evaluate
