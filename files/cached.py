"""What a cache has computed: its entries, their sizes and last uses, and how they are deleted.

An entry is the files with the same key in their names: an array and its note. A file with a name that the cache does
not give is no entry, so that nothing is deleted which somebody else has put into the folder.
"""

import contextlib
import math
import re
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np

from files.errors import UserError
from files.locks import alone

_LOCK = ".lock"
_LARGE = 10**9  # bytes


class Entry(NamedTuple):
    """The files of a key.

    Attributes:
        files: the largest first.
        locks: their locks, which stay, since another process may wait for them.
        size: in bytes.
        used: when a file was last read or written, in seconds since 1970, as the file system notes it.
    """

    files: tuple[Path, ...]
    locks: tuple[Path, ...]
    size: int
    used: float


def entries(folder: Path, names: re.Pattern[str]) -> list[Entry]:
    """The entries of a folder of the cache, those not used for longest first; none if there is no such folder.

    Args:
        folder: of one kind of entries.
        names: of their files; the first group is what the files of an entry have in common.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        locked = path.name.startswith(".") and path.name.endswith(_LOCK)
        name = names.fullmatch(path.name[1 : -len(_LOCK)] if locked else path.name)
        if name and (path.is_symlink() or path.is_file()):
            found[name[1]].append(path)
    return sorted(filter(None, map(_entry, found.values())), key=lambda entry: entry.used)


def _entry(paths: list[Path]) -> Entry | None:
    """The entry of these files; None if they are only locks, or have just been deleted."""
    about = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            about[path] = path.lstat()
    locks = tuple(path for path in about if path.name.endswith(_LOCK))
    files = sorted(about.keys() - set(locks), key=lambda path: (-about[path].st_size, path))
    if not files:
        return None
    used = max(max(about[path].st_atime, about[path].st_mtime) for path in files)
    return Entry(tuple(files), locks, sum(about[path].st_size for path in files), used)


def delete(entry: Entry) -> bool:
    """Deletes the files of an entry; processes that have them open can still read them.

    Returns:
        False if a process is writing the entry, which then stays.

    Raises:
        UserError: the system does not let them be deleted.
    """
    try:
        with ExitStack() as stack:
            for lock in entry.locks:
                stack.enter_context(alone(lock.with_name(lock.name[1 : -len(_LOCK)])))
            for path in entry.files:
                path.unlink(missing_ok=True)
    except filelock.Timeout:
        return False
    except OSError as error:
        raise UserError(
            f"{entry.files[0]}: cannot be deleted ({error.strerror}); change its folder's permissions"
        ) from error
    return True


def size_below(folder: Path) -> int:
    """Bytes of all files in a folder, which may be a link, and in its folders; links in it are not followed."""
    total = 0
    for path in folder.resolve().rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size if path.is_symlink() or path.is_file() else 0
    return total


def shown_size(size: int) -> str:
    """Bytes in the largest unit that leaves at least one: 3.7 GB, 512 B; units are powers of 1,000."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"


def tell_if_large(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Prints a note if an array is so large that a few of them fill a disk."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= _LARGE:
        print(f"note: {shown_size(size)} go into {path.parent} (python -m experiments.cache empties it)", flush=True)
