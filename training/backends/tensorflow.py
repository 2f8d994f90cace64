"""TensorFlow: one device, ``MirroredStrategy``, or ``MultiWorkerMirroredStrategy`` on several hosts."""
# ruff: noqa: D103  # see ``training.backends``
# long: one file a backend

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tensorflow.python.eager import context  # the coordination service has no public name
from tensorflow.python.framework import config as tensorflow_config  # switching determinism off is not public either

from files.cores import available_cores
from files.errors import UserError
from training.backends import Function, Map, RowGradient, Sums, TrainStep
from training.config import TrainingConfig
from training.draws import EVALUATION, Place, drawing_at
from training.hosts import hosts, rendezvous
from training.job import Job

SUM = tf.distribute.ReduceOp.SUM
MAX_SHARDS = 4  # tracing time grows with each shard, which is another copy of the graph
_SMALL = 2**20  # tensors with fewer numbers are reduced together
_NEW_PROCESS = "TensorFlow cannot change that: start a new process"


# ---------------------------------------------------------------------------------------------------------- placement


class Placement(NamedTuple):
    """A strategy, and the number of parts of one replica's batch.

    On a CPU a step is fastest with one part for each core, and every operation on one core: the parts run in parallel
    in one graph, instead of splitting every small operation over the cores.
    """

    strategy: tf.distribute.Strategy
    shards: int = 1

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def train_step(self, job: Job, training: TrainingConfig, spec: Any) -> TrainStep:
        update = _make_update(self, job, training, spec)

        def run(walk: Iterator[Any], step: int, count: int, sums: Sums) -> Sums:
            for number in range(step, step + count):
                values = update(*next(walk), tf.constant(number, tf.int64))
                sums = {name: sums[name] + value for name, value in values.items()} if sums else values
            return sums

        def prepare(batch: Any) -> tuple[Any, Any]:
            """Adds the number of examples in the whole batch, so that replicas need not exchange it."""
            return self._to_device(batch), tf.constant(batch.mask.sum(), tf.float32)

        return TrainStep(prepare, run)

    def map(self, function: Function, spec: Any) -> Map:
        def replica_values(batch: Any) -> dict:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            parts = _split(_part_of(batch, replica, self.replicas), self.shards)
            values = []
            for number, part in enumerate(parts):
                row = (tf.cast(replica, tf.int64) * len(parts) + number) * tf.shape(part.mask, tf.int64)[0]
                with drawing_at(Place(0, EVALUATION, row)):
                    values.append(function(part) | {"mask": part.mask})
            return {name: _of_all_hosts(tf.concat([part[name] for part in values], axis=0)) for name in values[0]}

        @tf.function(autograph=False, input_signature=[self._specs(spec)])
        def values_of(batch: Any) -> Any:
            return self.strategy.run(replica_values, args=(batch,))

        def run(batch: Any) -> dict[str, np.ndarray]:
            return {name: self._rows(value) for name, value in values_of(batch).items()}

        return Map(self._to_device, run)

    def _to_device(self, batch: Any) -> Any:
        """This host's rows as tensors: on its device, or in its main memory if several devices get parts of them."""
        rows, index = len(batch.mask) // hosts().count, hosts().index
        with tf.device("CPU:0" if self.replicas > 1 else None):
            return type(batch)(*(tf.convert_to_tensor(field[index * rows : (index + 1) * rows]) for field in batch))

    def _specs(self, spec: Any) -> Any:
        """The specs of the tensors that ``_to_device`` makes."""
        rows = spec.mask.shape[0] and spec.mask.shape[0] // hosts().count
        return type(spec)(*(tf.TensorSpec((rows, *field.shape[1:]), field.dtype) for field in spec))

    def _rows(self, value: Any) -> np.ndarray:
        """The rows of all replicas, in the order of the replicas."""
        parts = self.strategy.experimental_local_results(value)
        return np.asarray(parts[0]) if hosts().count > 1 else np.concatenate([np.asarray(part) for part in parts])


def make_placement(kind: str, count: int | None, shards: int) -> Placement:
    devices = kind if count is None else f"{kind}:{count}"
    gpus = tf.config.list_physical_devices("GPU")
    if kind != "cpu" and gpus and not tf.config.get_visible_devices("GPU"):
        raise UserError(
            f"--devices={devices}: an earlier task of this process has switched its GPUs off; {_NEW_PROCESS}"
        )
    if kind == "gpu" and len(gpus) < (count or 1):
        raise UserError(f"--devices={devices} asks for {count or 1} GPU(s) and TensorFlow sees {len(gpus)}")
    if kind == "cpu" or not gpus:
        return _cpu_placement(count or 1, shards)
    return Placement(_strategy(*(f"GPU:{i}" for i in range(count or len(gpus)))), shards or 1)


@cache
def _strategy(*devices: str) -> tf.distribute.Strategy:
    """The strategy over these devices of every host.

    There is one for each process: a second strategy over the same devices would number its collectives from the start
    again, and TensorFlow would mistake them for collectives of the first, with other shapes.
    """
    if hosts().count > 1:
        return _multi_worker(devices)
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def _cpu_placement(replicas: int, shards: int) -> Placement:
    from training.placement import keep_freed_memory

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        raise UserError(f"--devices=cpu: an earlier task of this process uses its GPUs; {_NEW_PROCESS}") from error
    cores = available_cores()
    shards = shards or max(1, min(MAX_SHARDS, cores // replicas))
    keep_freed_memory()
    _set_threads(intra=max(1, cores // (shards * replicas)), inter=cores)
    cpu = tf.config.list_physical_devices("CPU")[0]
    if replicas > max(1, len(tf.config.get_logical_device_configuration(cpu) or [])):
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
        except RuntimeError as error:
            raise UserError(
                f"--devices=cpu:{replicas}: an earlier task of this process has fewer CPU devices; {_NEW_PROCESS}"
            ) from error
    return Placement(_strategy(*(f"CPU:{i}" for i in range(replicas))), shards)


def _set_threads(intra: int, inter: int) -> None:
    """Sets TensorFlow's thread pools, which cannot change once TensorFlow has run anything in this process."""
    threading = tf.config.threading
    before = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    if before == (intra, inter):
        return
    try:
        threading.set_intra_op_parallelism_threads(intra)
        threading.set_inter_op_parallelism_threads(inter)
    except RuntimeError:
        print(
            f"note: TensorFlow keeps using {before[0]} thread(s) for each operation in this process; a new process "
            f"would use {intra}, and its results may differ in the last digits",
            flush=True,
        )


# --------------------------------------------------------------------------------------------------------- train step


def _make_update(placement: Placement, job: Job, training: TrainingConfig, spec: Any) -> Callable:
    """Compiles (batch, its number of examples, step) → sums over the batch, after one update of the weights."""
    strategy, replicas, accumulate = placement.strategy, placement.replicas, training.accumulate
    shard_gradients = _make_shard_gradients(job, training.xla)

    def replica_step(batch: Any, count: Any, step: Any) -> dict:
        together = tf.distribute.get_replica_context()
        replica = together.replica_id_in_sync_group
        batch = _part_of(batch, replica, replicas)
        shards = _shards_of(batch, placement.shards, accumulate)
        parts = _split(batch, shards * accumulate)
        rows = tf.cast(tf.shape(parts[0].mask)[0], tf.int64)
        first = tf.cast(replica, tf.int64) * len(parts)
        gradient: list = []
        sums: dict = {}
        for micro_batch in range(accumulate):
            # Each micro-batch waits for the one before, so that only one of them needs memory.
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
        gradient, total = _reduced(gradient, list(sums.values()), together, replicas)
        norm = _apply(job, gradient, training.clip_norm)
        return dict(zip(sums, total, strict=True)) | {"count": count, "gradient_norm": norm * count}

    @tf.function(
        autograph=False, input_signature=[placement._specs(spec), tf.TensorSpec([]), tf.TensorSpec([], tf.int64)]
    )
    def update(batch: Any, count: Any, step: Any) -> dict:
        sums = strategy.run(replica_step, args=(batch, count, step))
        return {name: strategy.experimental_local_results(value)[0] for name, value in sums.items()}

    return update


def _make_shard_gradients(job: Job, xla: bool) -> Callable:
    """(rows, number of examples in the global batch, place) → the rows' part of the gradient, and all values' sums."""

    def shard_gradients(part: Any, count: Any, place: Place) -> tuple[list, dict]:
        with tf.GradientTape() as tape:
            values = job.loss_fn(part, training=True, place=place)
            # Divided by the global count, so that the sum over shards and replicas is the gradient of the mean loss.
            loss = tf.reduce_sum(values["loss"] * part.mask) / count
        gradients = [_wide(g) for g in tape.gradient(loss, [v.value for v in job.model.trainable_variables])]
        return gradients, {name: tf.reduce_sum(value * part.mask) for name, value in values.items()}

    return tf.function(shard_gradients, jit_compile=True, autograph=False) if xla else shard_gradients


def _apply(job: Job, gradient: list, clip_norm: float) -> Any:
    """Clips and applies the reduced gradient; returns its norm before clipping."""
    gradient = [_unique_rows(g) for g in gradient]
    norm = tf.linalg.global_norm(gradient)
    if clip_norm:
        gradient, _ = tf.clip_by_global_norm(gradient, clip_norm, use_norm=norm)
    job.optimizer.apply(gradient, job.model.trainable_variables)
    return norm


def _add(parts: tuple) -> Any:
    """The sum of one variable's gradients over the shards; rows of an embedding are concatenated."""
    if parts[0] is None:
        raise ValueError("a trainable variable has no gradient; freeze it (trainable=False) or use it in the loss")
    if all(isinstance(part, tf.IndexedSlices) for part in parts):
        values = tf.concat([part.values for part in parts], axis=0)
        return tf.IndexedSlices(values, tf.concat([part.indices for part in parts], axis=0), parts[0].dense_shape)
    return tf.add_n([tf.convert_to_tensor(part) for part in parts])


def _reduced(gradient: list, sums: list, together: Any, replicas: int) -> tuple[list, list]:
    """The gradient and the sums, added up over all replicas in one call.

    Replicas of one host gather the rows of an embedding. Several hosts add up the whole table: with more than a few
    hosts this is cheaper, and TensorFlow crashes when it gathers unequal numbers of rows.
    """
    if replicas == 1:
        return gradient, sums
    shares = gradient if hosts().count == 1 else [tf.convert_to_tensor(share) for share in gradient]
    total = _all_reduced([*shares, *sums], together)
    total, sums = total[: len(shares)], total[len(shares) :]
    if hosts().count > 1:
        pairs = zip(total, gradient, strict=True)
        total = [_used_rows(whole) if isinstance(share, tf.IndexedSlices) else whole for whole, share in pairs]
    return total, sums


def _all_reduced(tensors: list, together: Any) -> list:
    """The tensors' sums over all replicas. Small tensors are sent as one, because every transfer has a fixed cost."""
    small = [i for i, x in enumerate(tensors) if isinstance(x, tf.Tensor) and (x.shape.num_elements() or 0) < _SMALL]
    large = [i for i in range(len(tensors)) if i not in small]
    packed = tf.concat([tf.reshape(tensors[i], [-1]) for i in small], axis=0)
    packed, *rest = together.all_reduce(SUM, [packed, *(tensors[i] for i in large)])
    parts = tf.split(packed, tf.stack([tf.size(tensors[i]) for i in small]), num=len(small))
    total = dict(zip(large, rest, strict=True))
    total |= {i: tf.reshape(part, tf.shape(tensors[i])) for i, part in zip(small, parts, strict=True)}
    return [total[i] for i in range(len(tensors))]


def _used_rows(values: Any, rows: Any = None, shape: Any = None) -> tf.IndexedSlices:
    """The rows [n, D] of a table that are not 0; ``rows`` are the numbers of the given values, by default all rows."""
    used = tf.where(tf.reduce_any(values != 0, axis=1))[:, 0]
    rows = used if rows is None else tf.gather(rows, used)
    return tf.IndexedSlices(tf.gather(values, used), rows, tf.shape(values) if shape is None else shape)


def _wide(gradient: Any) -> Any:
    """A gradient of bfloat16 weights as float32, for the sum over shards and for the norm."""
    if gradient is None or gradient.dtype != tf.bfloat16:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.cast(gradient.values, "float32"), gradient.indices, gradient.dense_shape)
    return tf.cast(gradient, "float32")


def _unique_rows(gradient: Any) -> Any:
    """Adds up the slices of an embedding gradient for the same row, and removes rows whose sum is 0.

    Otherwise words that occur only in filler rows would count as used, and filler depends on how a batch is divided.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
    return _used_rows(values, rows, gradient.dense_shape)


# ------------------------------------------------------------------------------------------------------------- batches


def _part_of(batch: Any, replica: Any, replicas: int) -> Any:
    """The rows of one replica, taken from its host's rows in main memory, so that a device receives only its own."""
    replicas //= hosts().count
    if replicas == 1:
        return batch
    with tf.device("CPU:0"):
        replica %= replicas
        rows = tf.shape(batch.mask)[0] // replicas
        fixed = batch.mask.shape[0] and batch.mask.shape[0] // replicas
        parts = [field[replica * rows : (replica + 1) * rows] for field in batch]
    return type(batch)(*(tf.ensure_shape(part, [fixed, *part.shape[1:]]) for part in parts))


def _split(batch: Any, parts: int) -> list[Any]:
    """Splits every tensor of a batch into ``parts`` equal ranges of rows."""
    if parts == 1:
        return [batch]
    fields = [tf.split(field, parts) for field in batch]
    return [type(batch)(*rows) for rows in zip(*fields, strict=True)]


def _shards_of(batch: Any, shards: int, micro_batches: int) -> int:
    """The greatest number that divides both ``shards`` and the rows of a micro-batch."""
    rows = batch.mask.shape[0]
    return shards if rows is None else math.gcd(shards, rows // micro_batches)


# --------------------------------------------------------------------------------------------------------------- hosts

_EXCHANGES = itertools.count()
_JOINED: list[tf.distribute.Strategy] = []  # the strategy over all hosts, once they are connected
_GONE = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError, tf.errors.CancelledError)


def _multi_worker(devices: Sequence[str]) -> tf.distribute.Strategy:
    rendezvous(hosts())
    tf.get_logger().setLevel("WARNING")  # it logs every collective
    if devices[0].startswith("GPU"):
        tf.config.set_visible_devices(tf.config.list_physical_devices("GPU")[: len(devices)], "GPU")
    elif len(devices) > 1:  # TensorFlow would use only the first of a CPU's logical devices
        CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker: (
            tuple(f"{worker}/device:{name}" for name in devices), "CPU",
        )  # fmt: skip
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.RING if devices[0].startswith("CPU") else kinds.AUTO
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
    _JOINED.append(tf.distribute.MultiWorkerMirroredStrategy(communication_options=options))
    return _JOINED[-1]


def exchange(text: str) -> list[str]:
    """Uses the coordination service. The hosts wait in a collective, because a collective fails if a host is lost."""
    service, number, me = context.context(), next(_EXCHANGES), hosts()
    service.set_config_key_value(f"triptych/{number}/{me.index}", text)
    _meet()
    texts = [service.get_config_key_value(f"triptych/{number}/{i}", 10_000) for i in range(me.count)]
    if number:  # every host in this round has read the round before
        service.delete_config_key_value(f"triptych/{number - 1}/{me.index}")
    return texts


def _meet() -> None:
    """Returns when every host has called it."""
    strategy = _JOINED[-1]
    strategy.experimental_local_results(_meeting(strategy)())[0].numpy()


@cache
def _meeting(strategy: tf.distribute.Strategy) -> Callable:
    def one() -> Any:
        return tf.distribute.get_replica_context().all_reduce(SUM, tf.ones([]) * 1.0)

    return tf.function(lambda: strategy.run(one), autograph=False)


def failure_of_another(error: BaseException) -> str | None:
    if isinstance(error, _GONE) or (isinstance(error, tf.errors.OpError) and "Collective ops" in str(error)):
        return str(error)
    return None


def leave(message: str) -> None:
    if message and _JOINED:
        with suppress(tf.errors.OpError):  # raised if another host has failed too
            context.context().report_error_to_cluster(3, message)
            time.sleep(1.0)  # until the other hosts have received it


def _of_all_hosts(value: Any) -> Any:
    """The rows of all replicas, gathered if there are several hosts."""
    if hosts().count == 1:
        return value
    kind = value.dtype
    known = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)
    wide = kind if kind in known else tf.float32 if kind.is_floating else tf.int32
    gathered = tf.distribute.get_replica_context().all_gather(tf.cast(value, wide), axis=0)
    return tf.cast(gathered, kind)


# ----------------------------------------------------------------------------------------------------------- optimizer


class _Rows(NamedTuple):
    indices: Any

    def take(self, table: Any) -> Any:
        return tf.gather(_variable(table), self.indices)

    def put(self, table: Any, values: Any) -> None:
        _variable(table).scatter_update(tf.IndexedSlices(values, self.indices))


def _variable(table: Any) -> Any:
    """The TensorFlow variable inside a Keras variable."""
    return table.value if isinstance(table, keras.Variable) else table


def rows_of(gradient: Any, variable: Any) -> RowGradient | None:
    if isinstance(gradient, tf.IndexedSlices):
        return RowGradient(_Rows(gradient.indices), gradient.values)
    return None


def dense(gradient: Any) -> Any:
    return tf.convert_to_tensor(gradient)


def apply_adam(
    variable: Any, m: Any, v: Any, gradient: Any, rate: Any, powers: tuple[Any, Any], betas: tuple[float, float],
    epsilon: float,
) -> None:  # fmt: skip
    """One fused pass."""
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle, m=m.value.handle, v=v.value.handle, beta1_power=powers[0], beta2_power=powers[1], lr=rate,
        beta1=betas[0], beta2=betas[1], epsilon=epsilon, grad=gradient,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- random numbers

_PHILOX = 1
_BLOCK = 4  # numbers for each count
_SEED = 2**32 - 1  # mask of the seed's bits in the key


def words(shape: Any, place: Place, stream: int) -> Any:
    """TensorFlow's own Philox, counted from the row."""
    rows, size = shape[0], math.prod(shape[1:])
    blocks = (size + _BLOCK - 1) // _BLOCK
    seed = tf.bitwise.bitwise_and(_word(place.seed), tf.constant([_SEED], tf.uint64))
    key = tf.bitwise.bitwise_or(seed, tf.constant([stream << 32], tf.uint64))
    counter = tf.concat([_word(place.row) * _word(blocks), _word(place.step)], axis=0)
    numbers = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([rows, blocks * _BLOCK]), key=key, counter=counter, alg=_PHILOX, dtype=tf.uint32
    )
    return tf.reshape(numbers[:, :size], shape)


def _word(value: Any) -> Any:
    return tf.reshape(tf.cast(value, tf.uint64), [1])


# ----------------------------------------------------------------------------------------------------------- process


def tf32() -> bool:
    return tf.config.experimental.tensor_float_32_execution_enabled()


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    switch = tf.config.experimental.enable_tensor_float_32_execution
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    switch(tf32)
    try:
        yield
    finally:
        switch(before)


@contextmanager
def deterministic() -> Iterator[None]:
    before = tensorflow_config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            tensorflow_config.disable_op_determinism()


def compiled(function: Callable) -> Callable:
    return tf.function(function, autograph=False)


def with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    def both(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return value, tape.gradient(value, x)

    return both
