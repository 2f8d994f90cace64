"""Images as a folder of PNG files, ``CLASS/NUMBER.png``, which --dataset=folder reads.

A folder is written whole, with a note of its files and their checksums. Only files that such a note names are ever
replaced, so that a user's own are never taken for ours.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from files.documents import file_sha256, read_sealed, shown, write_sealed
from files.errors import UserError
from files.locks import alone
from files.writing import draft_folder, is_held_back, move_whole

_NOTE = ".images.json"
_LONGEST = 255  # bytes of a name on the usual file systems
_DIGITS = 16  # of a checksum: there may be a million of them in a note


def check_names(classes: Collection[str]) -> None:
    """Raises UserError for a class that cannot be a folder of its own inside the folder of images."""
    for name in classes:
        if not _is_folder_name(name):
            raise UserError(
                f"--format=png: the class {shown(name)} is no name of a folder; use --format=npz, or other --classes"
            )


def _is_folder_name(name: str) -> bool:
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:  # half a character, from JSON
        return False
    plain = all(character >= " " and character not in "/\\\x7f" for character in name)
    return plain and 0 < length <= _LONGEST and not name.startswith(".")


def check_folder(folder: Path) -> None:
    """Raises UserError where ``folder`` holds anything that ``write_folder`` has not written there."""
    if not os.path.lexists(folder):
        return
    remedy = "move it away, or name another --out"
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder} is no folder of images that were written here: {remedy}")
    note = folder / _NOTE
    known = read_sealed(note).get("files") if note.is_file() else {}
    if not isinstance(known, dict):
        raise UserError(f"{note}: damaged: 'files' is no object: {remedy}")
    for file in _inside(folder):
        name = file.relative_to(folder).as_posix()
        regular = file.is_file() and not file.is_symlink()
        if file != note and not (regular and known.get(name) == _checksum(file)):
            raise UserError(f"{folder} holds {name}, which was not written there by this script: {remedy}")


def _inside(folder: Path) -> Iterator[Path]:
    """Every file below, and links to folders, which are not followed."""
    for path, below, names in os.walk(folder):
        links = [name for name in below if (Path(path) / name).is_symlink()]
        yield from (Path(path) / name for name in sorted([*names, *links]))


def _checksum(file: Path) -> str:
    return file_sha256(file)[:_DIGITS]


def write_folder(folder: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes images [H, W, 1 or 3] uint8 under their names in place of those that were written there before.

    Raises:
        UserError: see ``check_folder``.
        OSError: it cannot be written.
    """
    if is_held_back(folder):
        return
    checksums = {}
    waiting = f"waiting for another process, which writes {folder}"
    with alone(folder.parent, waiting), draft_folder(folder) as draft:
        for name, pixels in images:
            file = draft / name
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)
            checksums[name] = _checksum(file)
        write_sealed(draft / _NOTE, {"files": checksums})
        check_folder(folder)  # the last moment: making the images took its time
        with draft_folder(folder) as before:  # those of an earlier call, which end with it
            if folder.exists():
                os.replace(folder, before / folder.name)
            move_whole(draft, folder)
