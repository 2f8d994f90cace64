"""The manual loop: one replica step, per-example evaluation, and ``fit``.

A package hands the engine a function, never a subclass::

    loss_fn(batch, training, seed) -> {"loss": [B], "accuracy": [B], ...}     # one number per example

and batches whose ``mask`` [B] is 1 for an example and 0 for a filler row. Sums and counts travel apart and are divided
once, so a ragged last batch, any number of replicas and any number of shards give the same numbers.
"""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from training.checkpoint import Checkpointer, State
from training.errors import Interrupted, UserError
from training.optimizer import AdamW
from training.run import Run
from training.strategy import Placement

SUM = tf.distribute.ReduceOp.SUM
Figures = dict[str, float]


class Batch(Protocol):
    """What the engine needs of a batch: a NamedTuple of tensors with one row an example and a ``mask``."""

    mask: Any  # [B] float32

    def _replace(self, **changes: Any) -> "Batch": ...


class LossFn(Protocol):
    """Per-example loss and metrics of a batch, each [B]."""

    def __call__(self, batch: Any, training: bool, seed: Any) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, on what, and how it is judged.

    Attributes:
        model: its trainable variables are updated.
        optimizer: built on ``model.trainable_variables``, in the strategy's scope.
        loss_fn: see the module's docstring.
        train: step → the endless data set of batches from that step on; a pure function, so that data resumes exactly.
        evaluate: () → figures on the validation split; called with the averaged weights where there are any.
        rates: (mean figures, examples per second) → the figures to log in their place, such as tokens per second.
    """

    model: keras.Model
    optimizer: AdamW
    loss_fn: LossFn
    train: Callable[[int], tf.data.Dataset]
    evaluate: Callable[[], Figures]
    rates: Callable[[Figures, float], Figures] = lambda figures, examples_per_second: figures


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a job is run.

    Attributes:
        num_steps: updates in all.
        log_every, eval_every: steps between log lines and between evaluations; a checkpoint goes with each evaluation.
        clip_norm: bound on the global gradient norm, after the reduction over replicas; 0 for none.
        select: the validation figure that picks the best weights; "" takes the last.
        minimize: whether less of it is better.
        patience: evaluations without improvement after which training stops; 0 never stops early.
        seed: of dropout and its like.
        jit_compile: compile forward and backward pass with XLA.
        accumulate: parts of a replica's batch computed one after another, so that only one needs memory at a time; the
            gradient is the same.
    """

    num_steps: int
    log_every: int = 50
    eval_every: int = 500
    clip_norm: float = 1.0
    select: str = "accuracy"
    minimize: bool = False
    patience: int = 0
    seed: int = 0
    jit_compile: bool = False
    accumulate: int = 1


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Cuts every tensor of a batch into ``parts`` equal ranges of rows."""
    if parts == 1:
        return [batch]
    fields = [tf.split(field, parts) for field in batch]
    return [type(batch)(*rows) for rows in zip(*fields, strict=True)]


def make_train_step(job: Job, placement: Placement, settings: Settings, element_spec: Any) -> Any:
    """Compiles (batch, step) → sums over the global batch: every value of ``loss_fn``, ``count``, and the gradient
    norm before clipping, after one update of the weights."""
    strategy = placement.strategy

    def shard_gradients(part: Any, count: Any, seed: Any) -> tuple[list, dict]:
        with tf.GradientTape() as tape:
            values = job.loss_fn(part, training=True, seed=seed)
            # By the global count, so that the sum over shards and replicas is the gradient of the mean loss.
            loss = tf.reduce_sum(values["loss"] * part.mask) / count
        gradients = tape.gradient(loss, [v.value for v in job.model.trainable_variables])
        return gradients, {name: tf.reduce_sum(value * part.mask) for name, value in values.items()}

    if settings.jit_compile:
        shard_gradients = tf.function(shard_gradients, jit_compile=True)

    def replica_step(batch: Any, step: Any) -> dict:
        context = tf.distribute.get_replica_context()
        count = context.all_reduce(SUM, tf.reduce_sum(batch.mask))
        shards = _shards(placement.shards, batch, settings.accumulate)
        parts = split_batch(batch, shards * settings.accumulate)
        first = (step * strategy.num_replicas_in_sync + tf.cast(context.replica_id_in_sync_group, tf.int64)) * len(
            parts
        )
        gradient: list = []
        sums: dict = {}
        for turn in range(settings.accumulate):
            with tf.control_dependencies(tf.nest.flatten(gradient, expand_composites=True)):  # wait for the turn before
                gradients, totals = [gradient] if turn else [], [sums] if turn else []
                for place in range(turn * shards, (turn + 1) * shards):
                    seed = tf.stack([tf.constant(settings.seed, tf.int64), first + place])
                    part = type(batch)(*map(tf.identity, parts[place]))
                    shard_gradient, shard_sums = shard_gradients(part, count, seed)
                    gradients.append(shard_gradient)
                    totals.append(shard_sums)
                gradient = [_add(shares) for shares in zip(*gradients, strict=True)]
                sums = {name: tf.add_n([total[name] for total in totals]) for name in totals[0]}
        gradient = [_unique_rows(g) for g in context.all_reduce(SUM, gradient)]
        norm = tf.linalg.global_norm(gradient)
        if settings.clip_norm:
            gradient, _ = tf.clip_by_global_norm(gradient, settings.clip_norm, use_norm=norm)
        job.optimizer.apply(gradient, job.model.trainable_variables)
        total = {name: context.all_reduce(SUM, value) for name, value in sums.items()}
        return total | {"count": count, "gradient_norm": norm * count}

    @tf.function(input_signature=[element_spec, tf.TensorSpec([], tf.int64)])
    def train_step(batch: Any, step: Any) -> dict:
        sums = strategy.run(replica_step, args=(batch, step))
        return {name: strategy.experimental_local_results(value)[0] for name, value in sums.items()}

    return train_step


def _shards(shards: int, batch: Any, turns: int = 1) -> int:
    """As many shards as asked for, or as many as both they and what each turn gets of the batch can be divided by.

    Batches whose number of rows differs are made of multiples of replicas, turns and shards.
    """
    rows = batch.mask.shape[0]
    return shards if rows is None else math.gcd(shards, rows // turns)


def _add(parts: tuple) -> Any:
    """The sum of one variable's gradients from each shard; rows of an embedding are just listed one after another."""
    if parts[0] is None:
        raise ValueError("a trainable variable has no gradient; freeze it (trainable=False) or use it in the loss")
    if all(isinstance(part, tf.IndexedSlices) for part in parts):
        values = tf.concat([part.values for part in parts], axis=0)
        return tf.IndexedSlices(values, tf.concat([part.indices for part in parts], axis=0), parts[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(part) for part in parts])


def _unique_rows(gradient: Any) -> Any:
    """Adds up the slices of an embedding gradient that fall on the same row."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def make_mapper(function: Callable[[Any], dict[str, Any]], placement: Placement) -> Callable:
    """Compiles ``function(batch) -> {name: [B, ...]}`` into data set → a stream of {name: array}, one a batch.

    Filler rows are dropped; the order is the data set's.
    """
    strategy = placement.strategy

    def replica_values(batch: Any) -> dict:
        shards = _shards(placement.shards, batch)
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


def fit(job: Job, placement: Placement, run: Run, settings: Settings) -> State:
    """Trains to the last step or an early stop, and leaves the best weights in the model.

    Restores the run folder's checkpoint first, if there is one: then every figure is bit for bit what it would have
    been without the interruption. SIGINT and SIGTERM finish the step, save and raise ``Interrupted``.

    Raises:
        UserError: the loss is no longer finite, or ``settings.select`` is no validation figure.
        Interrupted: the user stopped the run.
    """
    checkpointer = Checkpointer(run.path / "checkpoints", job.model, job.optimizer)
    state = checkpointer.restore() or State()
    run.resume_at(state.step, settings.num_steps)
    with _stop_requests() as stop:
        _train(job, placement, run, settings, checkpointer, state, stop)
    checkpointer.load_best()
    return state


def _train(
    job: Job,
    placement: Placement,
    run: Run,
    settings: Settings,
    checkpointer: Checkpointer,
    state: State,
    stop: threading.Event,
) -> None:
    dataset = placement.strategy.experimental_distribute_dataset(job.train(state.step))
    train_step = make_train_step(job, placement, settings, dataset.element_spec)
    batches: Iterator = iter(dataset)
    clock = time.monotonic()
    while state.step < settings.num_steps and not state.stopped:
        state.add(train_step(next(batches), tf.constant(state.step, tf.int64)))
        state.step += 1
        last = state.step == settings.num_steps
        evaluation_due = last or state.step % settings.eval_every == 0
        if evaluation_due or state.step % settings.log_every == 0:
            _log_train(job, run, settings, state, clock)
            clock = time.monotonic()
        if evaluation_due:
            _evaluate(job, run, settings, checkpointer, state)
            clock = time.monotonic()
        if evaluation_due or stop.is_set():
            elapsed, clock = time.monotonic() - clock, time.monotonic()
            state.seconds += elapsed
            state.window_seconds += elapsed
            checkpointer.save(state)
        if stop.is_set():
            raise Interrupted(f"stopped after step {state.step}; go on with the same flags and --run_dir={run.path}")


def _log_train(job: Job, run: Run, settings: Settings, state: State, clock: float) -> None:
    elapsed = time.monotonic() - clock
    state.seconds += elapsed
    window = elapsed + state.window_seconds
    count, means = state.take_means()
    if not math.isfinite(means["loss"]):
        raise UserError(
            f"the loss became {means['loss']} before step {state.step}: lower the learning rate, or raise the warm-up; "
            f"the last good checkpoint in {run.path} is kept"
        )
    rate = count / max(window, 1e-9)
    learning_rate = float(keras.ops.convert_to_numpy(job.optimizer.learning_rate))
    figures = job.rates(means, rate) | {"learning_rate": learning_rate, "examples_per_second": rate}
    run.log(state.step, "train", figures)


def _evaluate(job: Job, run: Run, settings: Settings, checkpointer: Checkpointer, state: State) -> None:
    with job.optimizer.averaged():
        figures = job.evaluate()
        if settings.select and settings.select not in figures:
            raise UserError(f"--select={settings.select} is no validation figure: use one of {', '.join(figures)}")
        value = figures[settings.select] * (-1.0 if settings.minimize else 1.0) if settings.select else state.step
        if state.best is None or value > state.best:
            state.best, state.best_step, state.evaluations_since_best = value, state.step, 0
            checkpointer.save_best()
        else:
            state.evaluations_since_best += 1
    run.log(state.step, "validation", figures)
    state.stopped = bool(settings.patience) and state.evaluations_since_best >= settings.patience


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turns SIGINT and SIGTERM into an event while inside; a second SIGINT interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
