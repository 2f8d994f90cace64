"""Folders that are written whole, with a note of their files and checksums.

Only files in such a note are ever replaced: a user's own files are never touched.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from files.documents import file_sha256, read_sealed, write_sealed
from files.errors import UserError
from files.locks import alone
from files.writing import draft_folder, move_whole

_FILES = "files"
_DIGITS = 16  # of a checksum: there may be a million of them in a note


def check_owned(folder: Path, note: str, what: str) -> None:
    """Raises UserError if ``folder`` holds anything that its note does not list.

    Args:
        folder: may not exist.
        note: name of the note.
        what: the usual content of such a folder, for the message.
    """
    if not os.path.lexists(folder):
        return
    remedy = "move it away, or name another --out"
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder} is no folder of {what}: {remedy}")
    known = read_sealed(folder / note).get(_FILES) if (folder / note).is_file() else {}
    if not isinstance(known, dict):
        raise UserError(f"{folder / note}: damaged: {_FILES!r} is no object: {remedy}")
    for file in _inside(folder):
        name = file.relative_to(folder).as_posix()
        regular = file.is_file() and not file.is_symlink()
        if name != note and not (regular and known.get(name) == _checksum(file)):
            raise UserError(f"{folder} holds {name}, which was not written there by this script: {remedy}")


def seal(draft: Path, note: str, about: dict[str, Any]) -> None:
    """Writes the note of a draft's files, with further entries ``about`` them."""
    digests = {file.relative_to(draft).as_posix(): _checksum(file) for file in _inside(draft)}
    write_sealed(draft / note, about | {_FILES: digests})


def put_in_place(draft: Path, folder: Path, note: str, what: str) -> None:
    """Moves a sealed draft to ``folder``; replaces a folder that was written here before.

    Raises:
        UserError: see ``check_owned``.
        OSError: it cannot be written.
    """
    with alone(folder.parent, f"waiting for another process, which writes {folder}"):
        check_owned(folder, note, what)  # again: making the draft took time
        with draft_folder(folder) as before:  # the old folder, removed at the end
            if folder.exists():
                os.replace(folder, before / folder.name)
            move_whole(draft, folder)


def _checksum(file: Path) -> str:
    return file_sha256(file)[:_DIGITS]


def _inside(folder: Path) -> Iterator[Path]:
    """Every file below, and links to folders, which are not followed."""
    for path, below, names in os.walk(folder):
        links = [name for name in below if (Path(path) / name).is_symlink()]
        yield from (Path(path) / name for name in sorted([*names, *links]))
