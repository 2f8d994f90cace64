"""One process at a time, on files that several share. A lock ends with its process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_ASKING = 0.5  # seconds that ``is_taken`` of other processes may keep a lock, at the very most


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
        OSError: the lock cannot be written.
    """
    lock = filelock.FileLock(lock_of(path), thread_local=False)
    try:
        lock.acquire(timeout=0 if waiting else _ASKING, poll_interval=0.02)
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
    try:
        file = lock_of(path)
        if not file.exists():
            return False
        lock = filelock.FileLock(file, thread_local=False)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be read or written
        return False
    lock.release()
    return False


def is_held(path: Path) -> bool:
    """Whether a process has ``path`` alone, for onlookers: nothing is written, and no lock is taken from anybody.

    An onlooker shares the lock for a moment; ``is_taken`` would have it alone, and rewrite its file.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return is_taken(path)
    try:
        with lock_of(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or it cannot be read
        return False
    return False
