"""The user's ``--devices`` → the placement of a job."""

import ctypes
import sys

from files.errors import UserError
from training.backends import Placement, backend


def make_placement(devices: str = "auto", shards: int = 0) -> Placement:
    """The placement for a device specification; on several hosts (``training.hosts``) it holds for each host.

    Args:
        devices: ``auto`` (all GPUs, or the CPU if there is none), ``cpu``, ``gpu``, or a number of replicas such as
            ``gpu:2`` or ``cpu:2`` (logical devices, to test replicas on any machine).
        shards: parts of a replica's batch that run in parallel; 0: the fastest number.

    Raises:
        UserError: the specification is not understood, there are fewer devices, or a host cannot be reached.
    """
    kind, _, text = devices.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (text and (not text.isdigit() or int(text) < 1 or kind == "auto")):
        raise UserError(f"--devices={devices!r} is not understood: use auto, cpu, gpu, cpu:N or gpu:N")
    return backend().make_placement(kind, int(text) if text else None, shards)


def multiple_of(placement: Placement, micro_batches: int = 1) -> int:
    """The number of rows must be a multiple of this, so that all replicas, micro-batches and shards get the same."""
    return placement.replicas * placement.shards * micro_batches


def keep_freed_memory() -> None:
    """Makes glibc reuse large buffers instead of returning them to the kernel after every operation.

    The kernel fills new pages with zeros: on texts of 256 tokens this took a tenth to a quarter of the step.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # from malloc.h
        for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**26), (mmap_max, 0), (arena_max, 1)):
            mallopt(option, value)
