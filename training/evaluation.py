"""Functions of batches over whole data sets, on any devices."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from training.draws import EVALUATION, Place, drawing_at
from training.feed import Batches, feed, filled_spec, filled_up
from training.job import multiple_of, part_of, split_batch, tensor_specs, to_device
from training.strategy import Placement


def make_mapper(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """Compiles ``function(batch) -> {name: [B, ...]}`` into data set → a stream of {name: array}, one a batch.

    Filler rows are dropped; the order is the data set's.
    """
    strategy = placement.strategy
    replicas = strategy.num_replicas_in_sync

    def replica_values(batch: Any) -> dict:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        parts = split_batch(part_of(batch, replica, replicas), placement.shards)
        values = []
        for number, part in enumerate(parts):
            row = (tf.cast(replica, tf.int64) * len(parts) + number) * tf.shape(part.mask, tf.int64)[0]
            with drawing_at(Place(0, EVALUATION, row)):
                values.append(function(part) | {"mask": part.mask})
        return {name: tf.concat([part[name] for part in values], axis=0) for name in values[0]}

    @cache
    def compiled(spec: Any) -> Callable:
        signature = [tensor_specs(spec)]
        return tf.function(lambda batch: strategy.run(replica_values, args=(batch,)), input_signature=signature)

    def stream(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
        multiple = multiple_of(placement)
        values_of = compiled(filled_spec(batches.spec, multiple))
        with feed(batches, lambda batch: to_device(filled_up(batch, multiple), placement)) as walk:
            for batch in walk:
                arrays = {
                    name: np.concatenate([np.asarray(local) for local in strategy.experimental_local_results(value)])
                    for name, value in values_of(batch).items()
                }
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
