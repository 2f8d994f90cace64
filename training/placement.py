"""What the user calls devices → where a job runs."""

import ctypes
import sys

from files.errors import UserError
from training.backends import Placement, backend


def make_placement(devices: str = "auto", shards: int = 0) -> Placement:
    """The placement for a device specification; on several hosts (``training.hosts``) each uses as many devices.

    Args:
        devices: ``auto`` (every GPU there is, else the CPU), ``cpu``, ``gpu``, or a count of replicas such as
            ``gpu:2`` or ``cpu:2`` (logical devices, for trying out replicas on any machine).
        shards: parts of a replica's batch that run side by side; 0: what is fastest.

    Raises:
        UserError: the specification is not understood, there are fewer devices, or a host cannot be reached.
    """
    kind, _, text = devices.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (text and (not text.isdigit() or int(text) < 1 or kind == "auto")):
        raise UserError(f"--devices={devices!r} is not understood: use auto, cpu, gpu, cpu:N or gpu:N")
    return backend().make_placement(kind, int(text) if text else None, shards)


def multiple_of(placement: Placement, micro_batches: int = 1) -> int:
    """Rows must be a multiple of this to be cut up for all replicas, micro-batches and shards."""
    return placement.replicas * placement.shards * micro_batches


def keep_freed_memory() -> None:
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
