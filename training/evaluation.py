"""Functions of batches over whole data sets, on any devices."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from training.job import shards_of, split_batch
from training.strategy import Placement


def make_mapper(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """Compiles ``function(batch) -> {name: [B, ...]}`` into data set → a stream of {name: array}, one a batch.

    Filler rows are dropped; the order is the data set's.
    """
    strategy = placement.strategy

    def replica_values(batch: Any) -> dict:
        shards = shards_of(batch, placement.shards)
        parts = [function(part) | {"mask": part.mask} for part in split_batch(batch, shards)]
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}

    compiled = tf.function(lambda batch: strategy.run(replica_values, args=(batch,)), reduce_retracing=True)

    def stream(dataset: tf.data.Dataset) -> Iterator[dict[str, np.ndarray]]:
        for batch in strategy.experimental_distribute_dataset(dataset):
            arrays = {
                name: np.concatenate([np.asarray(local) for local in strategy.experimental_local_results(value)])
                for name, value in compiled(batch).items()
            }
            real = arrays.pop("mask") > 0
            yield {name: array[real] for name, array in arrays.items()}

    return stream


def make_evaluator(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """``make_mapper``, collected: data set → {name: array with one row an example}."""
    stream = make_mapper(function, placement)

    def evaluate(dataset: tf.data.Dataset) -> dict[str, np.ndarray]:
        parts = list(stream(dataset))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return evaluate
