"""Small texts and JSON, read with care: every error is one line that names the file."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, TypeGuard

from files.errors import UserError
from files.limits import check_regular, read_at_most
from files.writing import write_text

MOST_BYTES = 64 * 2**20  # of a document; configurations and vocabularies are far smaller
_SEAL = "sha256"
_DIGEST = re.compile("[0-9a-f]{64}")  # if it is under another name, the name of the checksum is damaged


def read_text(path: Path) -> str:
    """A small UTF-8 file.

    Raises:
        UserError: no regular file, larger than 64 MiB, not UTF-8, or not readable.
    """
    check_regular(path, MOST_BYTES)
    try:
        with path.open("rb") as file:
            return read_at_most(file, MOST_BYTES, 2**20).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def shown(value: Any, most: int = 60) -> str:
    """A value from a file for an error message: always one short line."""
    if isinstance(value, list | dict) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value):,}"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deep; a number of more than 4,300 digits
        return f"a {type(value).__name__}"
    return text if len(text) <= most else text[:most] + "…"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value from JSON is a finite number; an integer may be too large for a float."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def parse_json(text: str, where: str) -> Any:
    """JSON text → value.

    Raises:
        UserError: malformed, nested too deep, or with a number too long; names ``where``.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: malformed JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: malformed JSON: nested too deep") from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise UserError(f"{where}: malformed JSON: {str(error).split(';')[0]}") from error


def read_json(path: Path) -> Any:
    """The content of a small JSON file; raises UserError as ``read_text`` and ``parse_json`` do."""
    return parse_json(read_text(path), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """``read_json`` of a file that must hold an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged: a JSON object is expected, not {shown(content)}")
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes JSON for people, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object with a checksum of itself.

    Raises:
        ValueError: ``content`` uses the name of the checksum.
    """
    if _SEAL in content:
        raise ValueError(f"{path}: {_SEAL!r} is the checksum's name")
    content = json.loads(json.dumps(content))
    write_json(path, content | {_SEAL: _checksum(content)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads what ``write_sealed`` wrote; a file of an earlier version, without a checksum, is accepted.

    Raises:
        UserError: the file was damaged or changed.
    """
    content = read_object(path)
    seal = content.pop(_SEAL, None)
    renamed = seal is None and any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in content.values())
    if renamed or (seal is not None and seal != _checksum(content)):
        raise UserError(
            f"{path}: damaged, or changed by hand: it does not have the checksum that it was written with; take a "
            f"whole copy, or remove its line {_SEAL!r} if the change is meant"
        )
    return content


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
