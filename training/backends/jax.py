"""JAX: one program over all devices; XLA divides it along the rows of a batch."""
# long: one file a backend
# ruff: noqa: D103  # see ``training.backends``

import atexit
import dataclasses
import itertools
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, cached_property
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax._src import distributed
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from files.download import default_cache
from files.errors import UserError
from training.backends import Function, Map, RowGradient, Sums, TrainStep
from training.config import TrainingConfig
from training.draws import EVALUATION, Place, drawing_at
from training.hosts import hosts, rendezvous
from training.job import Job
from training.placement import keep_freed_memory
from training.randomness import is_seed_state

_SETTINGS: Any = jax.config  # typed Any because JAX creates its attributes at import
SOON = 0.1  # seconds: programs that compile faster are not kept in the cache
logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # it logs every kind of device that is missing


# ---------------------------------------------------------------------------------------------------------- placement


@dataclasses.dataclass(frozen=True)
class Placement:
    """Devices; each holds all variables and a part of the batch's rows."""

    devices: tuple[Any, ...]
    shards: int = 1

    @property
    def replicas(self) -> int:
        return len(self.devices)

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def train_step(self, job: Job, training: TrainingConfig, spec: Any) -> TrainStep:
        trained = job.model.trainable_variables
        others = [*job.model.non_trainable_variables, *job.optimizer.variables]
        variables = [*trained, *(variable for variable in others if not is_seed_state(variable.path))]
        names: list[str] = []  # in the order of ``loss_fn``; JAX sorts dictionaries
        update = jax.jit(
            _make_update(job, training, variables, len(trained), names), donate_argnums=0, out_shardings=self._outputs
        )

        def run(walk: Iterator[Any], step: int, count: int, sums: Sums) -> Sums:
            values = self._values(variables, apart=True)
            sums = {name: self._everywhere(jnp.asarray(value, "float32")) for name, value in sums.items()}
            try:
                for number in range(step, step + count):
                    values, totals = update(values, next(walk), np.int32(number))
                    sums = _added(sums, totals) if sums else totals  # outside ``update``, so that it compiles once
                jax.block_until_ready(sums)
            finally:  # ``update`` has reused the memory of the variables' old arrays
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(_own(value))
            return {name: _own(sums[name]) for name in names}

        return TrainStep(self._to_device, run)

    def map(self, function: Function, spec: Any) -> Map:
        programs: list[_Program] = []
        names: list[str] = []  # in the order of ``function``; JAX sorts dictionaries

        def values_of(batch: Any) -> dict:
            with drawing_at(Place(0, EVALUATION)):
                values = function(batch) | {"mask": batch.mask}
            names[:] = values
            return values

        def run(batch: Any) -> dict[str, np.ndarray]:
            if not programs:
                programs.append(_program(values_of, (batch,), out_shardings=self._outputs))
            values = programs[0].run(self._values(programs[0].variables), batch)
            return {name: np.asarray(values[name]) for name in names}

        return Map(self._to_device, run)

    def _to_device(self, batch: Any) -> Any:
        if self.replicas == 1:
            return jax.device_put(batch, self.devices[0])
        sharding = NamedSharding(self._mesh, PartitionSpec("rows"))
        rows, index = len(batch.mask) // hosts().count, hosts().index
        own = jax.tree.map(lambda field: field[index * rows : (index + 1) * rows], batch)
        return jax.tree.map(lambda field: jax.make_array_from_process_local_data(sharding, field), own)

    def _values(self, variables: Sequence[keras.Variable], apart: bool = False) -> list[Any]:
        """The variables' values on every device; ``apart``: no two values share memory."""
        values = [variable.value for variable in variables]
        return [self._everywhere(value) for value in (_apart(values) if apart else values)]

    def _everywhere(self, value: Any) -> Any:
        """An array on every device, of all hosts."""
        if self.replicas == 1:
            return jax.device_put(value, self.devices[0])
        if hosts().count == 1:
            return jax.device_put(value, self._whole)
        copies = [jax.device_put(value, device) for device in self.devices if device.process_index == hosts().index]
        return jax.make_array_from_single_device_arrays(value.shape, self._whole, copies)

    @property
    def _outputs(self) -> NamedSharding | None:
        """The sharding of results: a copy on every device; None for one device."""
        return self._whole if self.replicas > 1 else None

    @cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("rows",))

    @cached_property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec())


def make_placement(kind: str, count: int | None, shards: int) -> Placement:
    devices = kind if count is None else f"{kind}:{count}"
    if shards > 1:
        raise UserError(f"--shards={shards}: JAX spreads a batch over the cores itself; leave it out")
    if kind == "cpu" and count is not None:
        _make_cpus(count)
    _join()
    there = _devices(None if kind == "auto" else kind)
    if kind != "auto" and len(there) < (count or 1):
        raise UserError(f"--devices={devices} asks for {count or 1} {kind.upper()}(s) and JAX sees {len(there)}")
    used = there[:count] if count else there[:1] if there[0].platform == "cpu" else there
    if used[0].platform == "cpu":
        keep_freed_memory()
    _keep_compiled()
    _SETTINGS.update("jax_default_device", used[0])
    if hosts().count == 1:
        return Placement(tuple(used))
    platform = used[0].platform
    of_hosts = [[d for d in jax.devices(platform) if d.process_index == i][: len(used)] for i in range(hosts().count)]
    return Placement(tuple(device for of_host in of_hosts for device in of_host))


def _devices(platform: str | None) -> list[Any]:
    """The devices of this host."""
    try:
        return jax.local_devices(backend=platform)
    except RuntimeError:  # there is none
        return []


def _keep_compiled() -> None:
    """Makes XLA reuse what earlier processes compiled, because every padded length is a program of its own.

    JAX's own settings have priority. If the cache folder cannot be written, or its files are damaged, JAX compiles.
    """
    if _SETTINGS.jax_compilation_cache_dir or not _SETTINGS.jax_enable_compilation_cache:
        return
    with suppress(UserError, OSError):
        folder = default_cache() / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
            _SETTINGS.update("jax_compilation_cache_dir", str(folder))
            _SETTINGS.update("jax_persistent_cache_min_compile_time_secs", SOON)


def _make_cpus(count: int) -> None:
    """Makes logical CPU devices, before JAX is first asked for its devices."""
    if max(1, _SETTINGS.jax_num_cpu_devices) >= count:  # -1 if it was not set
        return
    try:
        _SETTINGS.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise UserError(
            f"--devices=cpu:{count}: an earlier task of this process has fewer CPU devices, and JAX cannot change "
            "that: start a new process"
        ) from error


# --------------------------------------------------------------------------------------------------------- train step


def _make_update(
    job: Job, training: TrainingConfig, variables: Sequence[keras.Variable], trained: int, names: list[str]
) -> Callable:  # fmt: skip
    """(values, batch, step) → values after one update, and the sums over the batch.

    Args:
        job, training: see ``Placement.train_step``.
        variables: the trained ones first.
        trained: number of the trained variables.
        names: is filled with the names of the sums, in their order, when the update is compiled.
    """
    order: list[str] = []
    gradients_of = _make_gradients(job, variables, trained, order)
    micro_batches = training.accumulate

    def update(values: list[Any], batch: Any, step: Any) -> tuple[list[Any], Sums]:
        count = jnp.sum(batch.mask)
        rows = len(batch.mask) // micro_batches
        parts = jax.tree.map(lambda field: field.reshape(micro_batches, rows, *field.shape[1:]), batch)
        weights, rest = values[:trained], values[trained:]

        def micro_batch(carry: tuple, part: tuple) -> tuple:
            rest, gradient, totals = carry
            number, batch = part
            (_, (found, rest)), share = gradients_of(weights, rest, batch, count, step, number * rows)
            return (rest, _sum(gradient, share), _sum(totals, found)), None

        first = jax.tree.map(lambda field: field[0], parts)
        (_, (totals, rest)), gradient = gradients_of(weights, rest, first, count, step, jnp.int32(0))
        if micro_batches > 1:
            others = jnp.arange(1, micro_batches), jax.tree.map(lambda field: field[1:], parts)
            (rest, gradient, totals), _ = lax.scan(micro_batch, (rest, gradient, totals), others)
        gradient, norm = _clipped(gradient, training.clip_norm)
        with keras.StatelessScope(list(zip(variables, [*weights, *rest], strict=True))) as scope:
            job.optimizer.apply(gradient, job.model.trainable_variables)
        totals |= {"count": count, "gradient_norm": norm * count}
        names[:] = [*order, "count", "gradient_norm"]
        return [scope.get_current_value(variable) for variable in variables], totals

    return update


def _clipped(gradient: list[Any], clip_norm: float) -> tuple[list[Any], Any]:
    """The gradient with its global norm reduced to ``clip_norm`` (0: as it is), and the norm before."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(share.astype("float32"))) for share in gradient))
    if clip_norm:
        factor = clip_norm / jnp.maximum(norm, clip_norm)
        gradient = [share * factor.astype(share.dtype) for share in gradient]
    return gradient, norm


def _make_gradients(job: Job, variables: Sequence[keras.Variable], trained: int, order: list[str]) -> Callable:
    """The arguments of ``_make_loss``'s function → its results, and the gradient by the weights, in float32."""
    value_and_gradient = jax.value_and_grad(_make_loss(job, variables, trained, order), has_aux=True)

    def gradients_of(*arguments: Any) -> tuple[Any, list[Any]]:
        values, gradient = value_and_gradient(*arguments)
        return values, [_wide(share) for share in gradient]

    return gradients_of


def _make_loss(job: Job, variables: Sequence[keras.Variable], trained: int, order: list[str]) -> Callable:
    """(weights, other values, rows, …) → the rows' part of the mean loss, and their sums with the new other values.

    ``order`` is filled with the names of ``loss_fn``'s values.
    """

    def loss(weights: list[Any], rest: list[Any], part: Any, count: Any, step: Any, row: Any) -> tuple:
        with keras.StatelessScope(list(zip(variables, [*weights, *rest], strict=True))) as scope:
            values = job.loss_fn(part, training=True, place=Place(job.seed, step, row))
        order[:] = values
        totals = {name: jnp.sum(value * part.mask) for name, value in values.items()}
        rest = [scope.get_current_value(variable) for variable in variables[trained:]]
        return totals["loss"] / count, (totals, rest)

    return loss


def _own(value: Any) -> Any:
    """The copy of an array on this host; reading it needs no other host."""
    return value if value.is_fully_addressable else value.addressable_data(0)


def _apart(values: list[Any]) -> list[Any]:
    """The arrays, with copies of those that share memory: JAX can reuse (donate) a buffer only once."""
    seen: set[int] = set()
    apart = []
    for value in values:
        memory = value.addressable_data(0).unsafe_buffer_pointer()
        apart.append(jnp.copy(value) if memory in seen else value)
        seen.add(memory)
    return apart


def _wide(gradient: Any) -> Any:
    """A gradient of bfloat16 weights as float32, for the sum over micro-batches and for the norm.

    The sum over several devices comes before, and is in bfloat16.
    """
    return gradient.astype("float32") if gradient.dtype == jnp.bfloat16 else gradient


def _sum(one: Any, two: Any) -> Any:
    return jax.tree.map(jnp.add, one, two)


_added = jax.jit(_sum)


class _Program(NamedTuple):
    """A compiled function. Its first argument is the list of the values of ``variables``, which it reads."""

    variables: list[keras.Variable]
    run: Callable


def _program(function: Callable, arguments: tuple, **options: Any) -> _Program:
    """The function, compiled with the variables that it reads as inputs.

    As constants they would be compiled too: slowly, as a second copy, and with the values of that moment.
    """
    variables = _read_by(function, *arguments)

    def with_values(values: Sequence[Any], *arguments: Any) -> Any:
        with _Complete(list(zip(variables, values, strict=True))):
            return function(*arguments)

    return _Program(variables, jax.jit(with_values, **options))


class _Complete(keras.StatelessScope):
    """A scope that must contain every variable read in it: the value of any other would be compiled as a constant."""

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        if value is None:
            raise RuntimeError(f"{variable.path} is read now, but was not in the first call: make the function again")
        return value


def _read_by(function: Callable, *arguments: Any) -> list[keras.Variable]:
    """The variables that a function reads, found by tracing it once; it may open no scope of its own."""
    read: dict[int, keras.Variable] = {}

    class Noting(keras.StatelessScope):
        def get_current_value(self, variable: keras.Variable) -> Any:
            read[id(variable)] = variable
            return super().get_current_value(variable)

    with Noting():
        jax.eval_shape(function, *arguments)
    return list(read.values())


# --------------------------------------------------------------------------------------------------------------- hosts

_EXCHANGES = itertools.count()
_FAILURE = "triptych/told"  # the key of a failing host's message
_PATIENCE = 30.0  # seconds that a failing host waits until the others have read its message
_GONE = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "coordination service")


@cache
def _join() -> None:
    """Connects to the other hosts and their devices; call it before any computation."""
    me = hosts()
    if me.count == 1:
        return
    rendezvous(me)
    _SETTINGS.update("jax_cpu_collectives_implementation", "gloo")
    _SETTINGS.update("jax_enable_preemption_service", False)  # the service would handle SIGTERM itself
    jax.distributed.initialize(
        me.addresses[0], me.count, me.index, cluster_detection_method="deactivate", initialization_timeout=60,
        heartbeat_timeout_seconds=10, shutdown_timeout_seconds=15,
    )  # fmt: skip


def _service() -> Any:
    """The service of keys and values that all hosts share; JAX has no public name for it."""
    return distributed.global_state.client


def exchange(text: str) -> list[str]:
    """Uses the coordination service, which ends this process itself if another host stops responding."""
    service, number, me = _service(), next(_EXCHANGES), hosts()
    service.key_value_set(f"triptych/{number}/{me.index}", text)
    texts = [_awaited(service, f"triptych/{number}/{i}") for i in range(me.count)]
    if number:  # every host in this round has read the round before
        service.key_value_delete(f"triptych/{number - 1}/{me.index}")
    return texts


def _awaited(service: Any, key: str) -> str:
    """Waits for a key's value; raises if a host reports its failure meanwhile."""
    while True:
        try:
            return service.blocking_key_value_get(key, 1_000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error) or _failure_message():
                raise


def _failure_message() -> str | None:
    """The message of a failing host; None if there is none."""
    with suppress(jax.errors.JaxRuntimeError):  # raised if the key is missing
        message = _service().key_value_try_get(_FAILURE)
        with suppress(jax.errors.JaxRuntimeError):
            _service().key_value_set(f"{_FAILURE}/{hosts().index}", "heard")
        return message
    return None


def failure_of_another(error: BaseException) -> str | None:
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return None
    return _failure_message() or (str(error) if any(word in str(error) for word in _GONE) else None)


def leave(message: str) -> None:
    if _service() is None:  # the hosts are not connected yet
        return
    if message:
        with suppress(jax.errors.JaxRuntimeError):
            _service().key_value_set(_FAILURE, message)
            _wait_until_heard()
    # JAX's own shutdown would wait for the other hosts, which wait for this one, and then abort the process.
    atexit.register(_exit)


def _wait_until_heard() -> None:
    """Waits until the other hosts have read the message: JAX aborts them when the first host ends."""
    end = time.monotonic() + _PATIENCE
    for index in set(range(hosts().count)) - {hosts().index}:
        left = max(1, int(1_000 * (end - time.monotonic())))
        with suppress(jax.errors.JaxRuntimeError):
            _service().blocking_key_value_get(f"{_FAILURE}/{index}", left)


def _exit() -> None:
    if hosts().chief:
        time.sleep(2.0)  # until the other hosts have printed why they end
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


# ----------------------------------------------------------------------------------------------------------- optimizer


class _Rows(NamedTuple):
    used: Any  # [V] bool

    def take(self, table: Any) -> Any:
        return getattr(table, "value", table)

    def put(self, table: Any, values: Any) -> None:
        used = self.used.reshape(-1, *[1] * (values.ndim - 1))
        table.assign(jnp.where(used, values, table.value))


def rows_of(gradient: Any, variable: Any) -> RowGradient | None:
    """The rows whose gradient is not 0; ``embeddings`` is the name of the table in Keras' Embedding."""
    if variable.path.split("/")[-1] != "embeddings":
        return None
    return RowGradient(_Rows(jnp.any(gradient != 0, axis=1)), gradient)


def dense(gradient: Any) -> Any:
    return gradient


def apply_adam(
    variable: Any, m: Any, v: Any, gradient: Any, rate: Any, powers: tuple[Any, Any], betas: tuple[float, float],
    epsilon: float,
) -> None:  # fmt: skip
    m.assign(m.value + (gradient - m.value) * (1.0 - betas[0]))
    v.assign(v.value + (jnp.square(gradient) - v.value) * (1.0 - betas[1]))
    rate = rate * jnp.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
    variable.assign(variable.value - rate * m.value / (jnp.sqrt(v.value) + epsilon))


# ---------------------------------------------------------------------------------------------------- random numbers

_BLOCK = 4  # numbers for each count
_FACTORS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def words(shape: Any, place: Place, stream: int) -> Any:
    rows, size = shape[0], math.prod(shape[1:])
    blocks = (size + _BLOCK - 1) // _BLOCK
    row = jnp.arange(rows, dtype="uint32") + jnp.asarray(place.row).astype("uint32")
    high, low = _product(row[:, None], jnp.uint32(blocks))
    low, start = low + jnp.arange(blocks, dtype="uint32"), low
    high = high + (low < start).astype("uint32")
    step = jnp.asarray(place.step)
    step_low = jnp.broadcast_to(step.astype("uint32"), low.shape)
    step_high = jnp.where(step_low > 0x7FFFFFFF, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))  # of a negative step
    seed = jnp.asarray(np.uint32(place.seed & 0xFFFFFFFF) if isinstance(place.seed, int) else place.seed)
    numbers = _philox([low, high, step_low, step_high], [seed.astype("uint32"), jnp.uint32(stream)])
    return jnp.stack(numbers, axis=-1).reshape(rows, blocks * _BLOCK)[:, :size].reshape(shape)


def _philox(counter: list[Any], key: list[Any]) -> list[Any]:
    """Philox 4×32-10 (Salmon et al. 2011)."""
    a, b, c, d = counter
    for number in range(_ROUNDS):
        if number:
            key = [part + jnp.uint32(weyl) for part, weyl in zip(key, _WEYL, strict=True)]
        (high_a, low_a), (high_c, low_c) = (_product(x, jnp.uint32(f)) for x, f in zip((a, c), _FACTORS, strict=True))
        a, b, c, d = high_c ^ b ^ key[0], low_c, high_a ^ d ^ key[1], low_a
    return [a, b, c, d]


def _product(x: Any, y: Any) -> tuple[Any, Any]:
    """The upper and lower 32 bits of a product, from a 64-bit product: twice as fast as four products of halves."""
    with jax.enable_x64(True):
        wide = lax.mul(*(lax.convert_element_type(jnp.broadcast_to(part, x.shape), "uint64") for part in (x, y)))
        high = lax.shift_right_logical(wide, jnp.full(x.shape, 32, "uint64"))
        return lax.convert_element_type(high, "uint32"), lax.convert_element_type(wide, "uint32")


# ----------------------------------------------------------------------------------------------------------- process


def tf32() -> bool:
    return _SETTINGS.jax_default_matmul_precision not in ("highest", "float32")


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Sets it for all threads, because the feed's thread may compute too; JAX's own context is for one thread."""
    before = _SETTINGS.jax_default_matmul_precision
    _SETTINGS.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    try:
        yield
    finally:
        _SETTINGS.update("jax_default_matmul_precision", before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Sets a flag that XLA reads at its first compilation."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    try:
        yield
    finally:
        os.environ["XLA_FLAGS"] = flags
        if not flags:
            del os.environ["XLA_FLAGS"]


def compiled(function: Callable) -> Callable:
    programs: dict[Any, _Program] = {}  # by the structure of the arguments: without pictures, other variables are read

    def run(*arguments: Any) -> Any:
        form = jax.tree.structure(arguments)
        if form not in programs:
            programs[form] = _program(function, arguments)
        program = programs[form]
        return program.run([variable.value for variable in program.variables], *arguments)

    return run


def with_gradient(function: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    def both(x: Any) -> tuple[Any, Any]:
        value, pull = jax.vjp(function, jnp.asarray(x))
        return value, pull(jnp.ones_like(value))[0]

    return both
