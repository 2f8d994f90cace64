"""One process at a time, on files that several share. A lock ends with its process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


def lock_of(path: Path) -> Path:
    """The file that is locked for ``path``: beside a file, inside a folder."""
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


@contextmanager
def alone(path: Path, waiting: str = "") -> Iterator[None]:
    """Inside, no other user of ``alone`` has ``path``.

    Args:
        path: a file, which need not exist, or a folder.
        waiting: printed if another has it, and then its end is waited for; without this text it is an error.

    Raises:
        filelock.Timeout: another has it.
    """
    lock = filelock.FileLock(lock_of(path), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        if not waiting:
            raise
        print(waiting, flush=True)
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()


def is_taken(path: Path) -> bool:
    """Whether another user of ``alone`` has ``path``; creates nothing."""
    file = lock_of(path)
    if not file.exists():
        return False
    lock = filelock.FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written
        return False
    lock.release()
    return False
