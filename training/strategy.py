"""Devices → a ``tf.distribute`` strategy and threads.

On CPU a step is fastest when the batch is cut into one part a core and every operation stays on its core: the parts
run side by side in one graph (``Placement.shards``), instead of every small operation being cut and joined again.
"""

import ctypes
import sys
from functools import cache
from typing import NamedTuple

import keras
import tensorflow as tf

from files.cores import available_cores
from files.errors import UserError

_NEW_PROCESS = "TensorFlow cannot change that: start a new process"
MAX_SHARDS = 4  # each shard is another copy of the graph to trace


class Placement(NamedTuple):
    """Where a job runs."""

    strategy: tf.distribute.Strategy
    shards: int  # parts that one replica's batch is cut into, run side by side


def make_strategy(devices: str = "auto", shards: int = 0) -> Placement:
    """Builds the strategy for a device specification.

    Args:
        devices: ``auto`` (every GPU there is, else the CPU), ``cpu``, ``gpu``, or a count of replicas such as
            ``gpu:2`` or ``cpu:2`` (logical devices, for trying out replicas on any machine).
        shards: parts of a replica's batch that run side by side; 0 takes one a core on CPU and 1 on GPU.

    Raises:
        UserError: the specification is not understood or there are fewer devices.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={keras.backend.backend()}: tasks run on TensorFlow alone (layers, models and samplers run "
            "on every backend); leave KERAS_BACKEND out, or set it to tensorflow"
        )
    kind, _, text = devices.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (text and (not text.isdigit() or int(text) < 1 or kind == "auto")):
        raise UserError(f"--devices={devices!r} is not understood: use auto, cpu, gpu, cpu:N or gpu:N")
    gpus = tf.config.list_physical_devices("GPU")
    if kind != "cpu" and gpus and not tf.config.get_visible_devices("GPU"):
        raise UserError(
            f"--devices={devices}: an earlier task of this process has switched its GPUs off; {_NEW_PROCESS}"
        )
    if kind == "gpu" and len(gpus) < int(text or 1):
        raise UserError(f"--devices={devices} asks for {text or 1} GPU(s) and TensorFlow sees {len(gpus)}")
    if kind == "cpu" or not gpus:
        return _cpu_placement(int(text or 1), shards)
    names = [f"GPU:{i}" for i in range(int(text or len(gpus)))]
    return Placement(_mirrored(*names) if len(names) > 1 else tf.distribute.get_strategy(), shards or 1)


@cache
def _mirrored(*devices: str) -> tf.distribute.Strategy:
    """One a process: a second strategy over the same devices counts its collectives from the start again, and
    TensorFlow takes them for the first one's, of other shapes."""
    return tf.distribute.MirroredStrategy(devices)


def _cpu_placement(replicas: int, shards: int) -> Placement:
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        raise UserError(f"--devices=cpu: an earlier task of this process uses its GPUs; {_NEW_PROCESS}") from error
    cores = available_cores()
    shards = shards or max(1, min(MAX_SHARDS, cores // replicas))
    _keep_freed_memory()
    _set_threads(intra=max(1, cores // (shards * replicas)), inter=cores)
    if replicas == 1:
        return Placement(tf.distribute.get_strategy(), shards)
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) < replicas:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
        except RuntimeError as error:
            raise UserError(
                f"--devices=cpu:{replicas}: an earlier task of this process has fewer CPU devices; {_NEW_PROCESS}"
            ) from error
    return Placement(_mirrored(*(f"CPU:{i}" for i in range(replicas))), shards)


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
            f"note: TensorFlow keeps the {before[0]} thread(s) an operation that it has in this process; a process of "
            f"its own would have {intra}, and may differ in the last digits",
            flush=True,
        )


def _keep_freed_memory() -> None:
    """Tells glibc to reuse large buffers instead of handing them back to the kernel after every operation.

    Fresh pages are zeroed by the kernel: on texts of 256 tokens that cost a tenth to a quarter of the step.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # from malloc.h
        for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**26), (mmap_max, 0), (arena_max, 1)):
            mallopt(option, value)
