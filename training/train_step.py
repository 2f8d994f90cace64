"""One update of the weights, compiled: shards and micro-batches, their gradients, the sum over replicas, clipping."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from training.config import TrainingConfig
from training.draws import Place
from training.feed import Batches, filled_up
from training.job import Job, multiple_of, part_of, shards_of, split_batch, tensor_specs, to_device
from training.strategy import Placement

SUM = tf.distribute.ReduceOp.SUM


def make_train_step(job: Job, placement: Placement, training: TrainingConfig, spec: Any) -> Any:
    """Compiles (global batch of this ``spec``, step) → sums over the batch: every value of ``loss_fn``, ``count``, and
    the gradient norm before clipping, after one update of the weights."""
    strategy, accumulate = placement.strategy, training.accumulate
    replicas = strategy.num_replicas_in_sync
    shard_gradients = _make_shard_gradients(job, training.xla)

    def replica_step(batch: Any, step: Any) -> dict:
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group
        batch = part_of(batch, replica, replicas)
        count = context.all_reduce(SUM, tf.reduce_sum(batch.mask))
        shards = shards_of(batch, placement.shards, accumulate)
        parts = split_batch(batch, shards * accumulate)
        rows = tf.cast(tf.shape(parts[0].mask)[0], tf.int64)
        first = tf.cast(replica, tf.int64) * len(parts)
        gradient: list = []
        sums: dict = {}
        for micro_batch in range(accumulate):
            # A micro-batch waits for the one before, so that only one of them needs memory.
            with tf.control_dependencies(tf.nest.flatten(gradient, expand_composites=True)):
                gradients, totals = ([gradient], [sums]) if micro_batch else ([], [])
                for place in range(micro_batch * shards, (micro_batch + 1) * shards):
                    at = Place(tf.constant(job.seed, tf.int64), step, (first + place) * rows)
                    part = type(batch)(*map(tf.identity, parts[place]))
                    shard_gradient, shard_sums = shard_gradients(part, count, at)
                    gradients.append(shard_gradient)
                    totals.append(shard_sums)
                gradient = [_add(shares) for shares in zip(*gradients, strict=True)]
                sums = {name: tf.add_n([total[name] for total in totals]) for name in totals[0]}
        norm = _update(job, context.all_reduce(SUM, gradient), training.clip_norm)
        total = {name: context.all_reduce(SUM, value) for name, value in sums.items()}
        return total | {"count": count, "gradient_norm": norm * count}

    @tf.function(input_signature=[tensor_specs(spec), tf.TensorSpec([], tf.int64)])
    def train_step(batch: Any, step: Any) -> dict:
        sums = strategy.run(replica_step, args=(batch, step))
        return {name: strategy.experimental_local_results(value)[0] for name, value in sums.items()}

    return train_step


def preparation(batches: Batches, placement: Placement, training: TrainingConfig) -> Callable[[Any], Any]:
    """What is done to a batch before its step: where the rows differ in number, they are filled up to be cut up."""
    multiple = multiple_of(placement, training.accumulate) if batches.spec.mask.shape[0] is None else 1
    return lambda batch: to_device(filled_up(batch, multiple), placement)


def _make_shard_gradients(job: Job, xla: bool) -> Callable:
    """(rows, examples of the global batch, place) → the gradient's share and the sums of every value."""

    def shard_gradients(part: Any, count: Any, place: Place) -> tuple[list, dict]:
        with tf.GradientTape() as tape:
            values = job.loss_fn(part, training=True, place=place)
            # By the global count, so that the sum over shards and replicas is the gradient of the mean loss.
            loss = tf.reduce_sum(values["loss"] * part.mask) / count
        gradients = tape.gradient(loss, [v.value for v in job.model.trainable_variables])
        return gradients, {name: tf.reduce_sum(value * part.mask) for name, value in values.items()}

    return tf.function(shard_gradients, jit_compile=True) if xla else shard_gradients


def _update(job: Job, gradient: list, clip_norm: float) -> Any:
    """Clips and applies the reduced gradient; returns its norm before clipping."""
    gradient = [_unique_rows(g) for g in gradient]
    norm = tf.linalg.global_norm(gradient)
    if clip_norm:
        gradient, _ = tf.clip_by_global_norm(gradient, clip_norm, use_norm=norm)
    job.optimizer.apply(gradient, job.model.trainable_variables)
    return norm


def _add(parts: tuple) -> Any:
    """The sum of one variable's gradients from each shard; rows of an embedding are just listed one after another."""
    if parts[0] is None:
        raise ValueError("a trainable variable has no gradient; freeze it (trainable=False) or use it in the loss")
    if all(isinstance(part, tf.IndexedSlices) for part in parts):
        values = tf.concat([part.values for part in parts], axis=0)
        return tf.IndexedSlices(values, tf.concat([part.indices for part in parts], axis=0), parts[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(part) for part in parts])


def _unique_rows(gradient: Any) -> Any:
    """Adds up the slices of an embedding gradient that fall on the same row; rows whose sum is 0 are left out.

    Words that only filler has would otherwise count as used, and filler depends on how a batch is cut up.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
    used = tf.where(tf.reduce_any(values != 0, axis=1))[:, 0]
    return tf.IndexedSlices(tf.gather(values, used), tf.gather(rows, used), gradient.dense_shape)
