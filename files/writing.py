"""Files written whole or not at all, whatever happens to the process or the machine meanwhile."""

import itertools
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNT = itertools.count()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` to be written inside; at the end it takes the place of ``path``, on the disk too.

    The draft's name is this process's own, so that two writers never meet. After an error it is removed; a process that
    is killed leaves it, and the next writer in the folder removes it.

    Raises:
        OSError: ``path`` cannot be written; names ``path``.
    """
    draft = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{next(_COUNT)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(path.parent)
        yield draft
        _to_disk(draft)
        os.replace(draft, path)
        _to_disk(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True) if path.parent.is_dir() else None
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def remove_drafts(folder: Path) -> None:
    """Removes what killed processes of this machine left half-written in a folder."""
    if os.name != "posix":
        return  # elsewhere there is no harmless way to ask whether a process lives
    for draft in folder.glob(".*.tmp"):
        if is_draft(draft.name) and not _is_alive(draft.name):
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


def is_draft(name: str) -> bool:
    """Whether a file of this name is a draft of ``replacing``."""
    return re.fullmatch(r"\..+-\d+-\d+\.tmp", name) is not None


def _is_alive(draft: str) -> bool:
    """Whether the process that writes a draft lives; taken for granted on another machine."""
    found = re.fullmatch(rf"\..+\.{re.escape(socket.gethostname())}-(\d+)-\d+\.tmp", draft)
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
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
