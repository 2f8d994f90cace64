"""Files written whole or not at all, even if the process or the machine stops in between."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNT = itertools.count()
_WRITING: set[Path] = set()  # drafts of files that this process writes now
_OURS: list[Path] = []  # folders in which this process may write; see ``held_back``
_LONGEST = 32  # characters of a file's name that its draft's name keeps: file systems limit the length


def _machine() -> str:
    """A name for the set of process numbers: the host, and on Linux its container."""
    try:
        return f"{socket.gethostname()}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


_MACHINE = _machine()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft in the folder of ``path`` to write inside the block; at its end the draft replaces ``path``, on disk.

    The draft's name contains the process's number, so that two writers never conflict. An error removes it; a killed
    process leaves it, and the next writer in the folder removes it.

    Raises:
        OSError: ``path`` cannot be written; names ``path``.
    """
    if is_held_back(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
        return
    draft = _draft_of(path)
    _WRITING.add(draft)
    try:
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_drafts(path.parent)
            yield draft
            move_whole(draft, path)
    finally:
        _remove(draft)
        _WRITING.discard(draft)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """An empty folder next to ``path``, for a draft of it; it is removed like a draft of ``replacing``.

    Raises:
        OSError: it cannot be made or written; names ``path``.
    """
    if is_held_back(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    draft = _draft_of(path)
    try:
        with _naming(path):
            draft.mkdir(parents=True)
            remove_drafts(path.parent)
            yield draft
    finally:
        _remove(draft)


@contextmanager
def held_back(but: Path) -> Iterator[None]:
    """A block in which this process changes only files below ``but``: another process of its job writes the others.

    Other files go into a temporary folder, which is removed.
    """
    _OURS.append(but.resolve())
    try:
        yield
    finally:
        _OURS.pop()


def is_held_back(path: Path) -> bool:
    """Whether another process of the job writes this file or folder; see ``held_back``."""
    return bool(_OURS) and not path.resolve().is_relative_to(_OURS[-1])


def move_whole(draft: Path, path: Path) -> None:
    """Moves a file or folder to its place once all of it is on the disk; a folder must not replace another."""
    if is_held_back(path):
        return
    if draft.is_dir():
        os.sync() if hasattr(os, "sync") else None  # one call for all files: there may be 100,000
    else:
        _to_disk(draft)
    os.replace(draft, path)
    with contextlib.suppress(OSError):  # some network file systems and Windows cannot do this for folders
        _to_disk(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Adds text to the end of a file in UTF-8, in one write.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    if is_held_back(path):
        return
    with _naming(path), path.open("ab", buffering=0) as file:
        file.write(text.encode("utf-8"))


def remove_drafts(folder: Path) -> None:
    """Removes drafts that killed processes of this machine left in a folder."""
    if os.name != "posix":
        return  # elsewhere there is no harmless test whether a process lives
    for draft in folder.glob(".*.tmp"):
        if is_draft(draft.name) and not _is_alive(draft.name):
            _remove(draft)


def remove_unfinished() -> None:
    """Removes the drafts of files that this process is writing; only for a process that ends at once.

    Drafts of folders stay for the next writer: such a folder may be the one that is being replaced.
    """
    for draft in list(_WRITING):
        _remove(draft)


def is_draft(name: str) -> bool:
    """Whether a file of this name is a draft of ``replacing``."""
    return re.fullmatch(r"\..+-\d+-\d+\.tmp", name) is not None


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:_LONGEST]}.{_MACHINE}-{os.getpid()}-{next(_COUNT)}.tmp")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Makes errors of the system name ``path``, and gives them a number if they have none."""
    try:
        yield
    except OSError as error:
        # NumPy's error for a full disk has no number: "1000 requested and 24 written".
        number = error.errno or (errno.ENOSPC if "requested and" in str(error) else errno.EIO)
        text = error.strerror if error.errno else os.strerror(number) if number == errno.ENOSPC else str(error)
        raise OSError(number, text or str(error), str(path)) from error


def _remove(draft: Path) -> None:
    """Removes a draft if it exists and can be removed; another user's draft stays, and does no harm."""
    with contextlib.suppress(OSError):
        shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def _is_alive(draft: str) -> bool:
    """Whether the process that writes a draft lives; True for a process of another machine."""
    found = re.fullmatch(rf"\..+\.{re.escape(_MACHINE)}-(\d+)-\d+\.tmp", draft)
    if found is None:
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows needs write access
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
