"""A trained model as a folder: ``config.json`` has a checksum of itself and of every other file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from files.documents import file_sha256, read_sealed, write_sealed
from files.errors import UserError
from files.writing import is_held_back

CONFIG = "config.json"


def write_artefact(folder: Path, config: dict[str, Any], files: Sequence[str] = ()) -> None:
    """Writes ``config.json``; called last, when the other ``files`` of the folder are written."""
    if is_held_back(folder):
        return
    write_sealed(folder / CONFIG, config | {"files": {name: file_sha256(folder / name) for name in files}})


def read_artefact(folder: Path, hint: str = "") -> dict[str, Any]:
    """The configuration of a folder, after a check that its files were saved together.

    Raises:
        UserError: there is no model (``hint``: a possible reason), or a file is missing, damaged or exchanged.
    """
    config = read_sealed(_config(folder, hint))
    digests = config.pop("files", {})
    if not isinstance(digests, dict):
        raise UserError(f"{folder / CONFIG}: damaged: 'files' is no object")
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file; copy the whole folder")
        if file_sha256(folder / name) != digest:
            raise UserError(f"{folder / name}: damaged or replaced: {CONFIG} has another checksum for this file")
    return config


def artefact_digest(folder: Path, hint: str = "") -> str:
    """SHA-256 of a model's configuration, which contains the checksums of its files; the files are not read.

    Raises:
        UserError: there is no model; ``hint``: a possible reason.
    """
    return file_sha256(_config(folder, hint))


def _config(folder: Path, hint: str) -> Path:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no trained model there ({CONFIG} is missing){hint}")
    return path
