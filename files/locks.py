"""One process at a time on shared files. A lock ends with its process, even if this is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_ASKING = 0.5  # most seconds that ``is_taken`` in another process holds a lock


def lock_of(path: Path) -> Path:
    """The lock's file: next to a file, inside a folder."""
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


@contextmanager
def alone(path: Path, waiting: str = "") -> Iterator[None]:
    """A block in which no other user of ``alone`` has ``path``.

    Args:
        path: a file, which need not exist, or a folder.
        waiting: printed if another process has it; then we wait for its end. Empty: an error instead.

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
    """Whether another user of ``alone`` has ``path``; creates no file."""
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
    """Whether a process has ``path`` alone; for observers: writes nothing and never holds the lock alone.

    An observer shares the lock for a moment; ``is_taken`` would hold it alone and rewrite its file.
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
    except OSError:  # no lock, or it cannot be read
        return False
    return False
