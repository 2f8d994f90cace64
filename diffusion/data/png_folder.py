"""Images as a folder of PNG files, ``CLASS/NUMBER.png``, which --dataset=folder reads.

A folder is written whole, and only replaces a folder that was written here (``files/owned_folders.py``).
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from diffusion.data.folders import is_system, split_of
from files.documents import shown
from files.errors import UserError
from files.owned_folders import check_owned, put_in_place, seal
from files.writing import draft_folder, is_held_back

_NOTE, _WHAT = ".images.json", "images that were written here"
_LONGEST = 255  # bytes of a name on the usual file systems


def check_names(classes: Collection[str]) -> None:
    """Raises UserError for a class that cannot be a folder of its own inside the folder of images."""
    for name in classes:
        if not _is_folder_name(name):
            raise UserError(
                f"--format=png: the class {shown(name)} cannot be the name of a class folder; use --format=npz, "
                "or other --classes"
            )


def _is_folder_name(name: str) -> bool:
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:  # half a character, from JSON
        return False
    plain = all(character >= " " and character not in "/\\\x7f" for character in name)
    if not plain or not 0 < length <= _LONGEST or name.startswith("."):
        return False
    return not split_of(name) and not is_system(PurePosixPath(name))  # --dataset=folder would read it as something else


def check_folder(folder: Path) -> None:
    """Raises UserError if ``folder`` holds anything that ``write_folder`` did not write."""
    check_owned(folder, _NOTE, _WHAT)


def write_folder(folder: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes images [H, W, 1 or 3] uint8 under their names; replaces the images of an earlier call.

    Raises:
        UserError: see ``check_folder``.
        OSError: it cannot be written.
    """
    if is_held_back(folder):
        return
    with draft_folder(folder) as draft:
        for name, pixels in images:
            file = draft / name
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)
        seal(draft, _NOTE, {})
        put_in_place(draft, folder, _NOTE, _WHAT)
