"""Text files as streams, compressed or not: nothing in them can take more memory or time than their size allows."""

import csv
import gzip
import io
import itertools
import lzma
import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, TextIO

from files.errors import UserError
from files.limits import DAMAGED, Bounded, ZstandardReader, check_regular, read_at_most

ROWS_A_MEGABYTE = 20_000  # that are kept: rows take memory even if they are short
COMPRESSED = (".gz", ".xz", ".zst")
MAX_MEGABYTES = 500
LONGEST = 2**24  # characters of a line, of a row of CSV (which may have several lines) and of an item of an array
_SPACE = re.compile(r"[ \t\n\r]*")


def open_text(path: Path, max_megabytes: int = MAX_MEGABYTES) -> TextIO:
    """Opens a text file, unpacking .gz, .xz and .zst on the way.

    Raises:
        UserError: no regular file, an empty one, or while it is read: more than ``max_megabytes``, unpacked.
    """
    message = _too_large(path, max_megabytes)
    size = check_regular(path)
    if size == 0:
        raise UserError(f"{path}: the file is empty")
    if size > max_megabytes * 10**6:
        raise UserError(message)
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".zst": lambda path, mode: ZstandardReader(path)}
    try:
        stream = openers.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    bounded = Bounded(stream, max_megabytes * 10**6, message)
    return io.TextIOWrapper(io.BufferedReader(bounded, 2**17), encoding="utf-8-sig", newline="")


def _too_large(path: Path, max_megabytes: int) -> str:
    return f"{path}: more than {max_megabytes:,} MB of text; if it is meant to be so large, raise --max_megabytes"


def check_size(path: Path, max_megabytes: int) -> None:
    """Refuses what unpacks to too much before any row of it is kept; raises UserError as ``open_text`` does."""
    if path.suffix in COMPRESSED:
        with open_text(path, max_megabytes) as file:
            for _ in checked(iter(lambda: file.buffer.read(2**20), b""), path):
                pass


def checked(parts: Iterator, path: Path) -> Iterator:
    """Passes items on and turns a damaged archive, a wrong encoding or malformed CSV into a clear error."""
    try:
        yield from parts
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from error
    except DAMAGED as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error})") from error


def read_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of an open text file, with their ends.

    Raises:
        UserError: a damaged archive, not UTF-8, or a line of more than ``LONGEST`` characters.
    """
    return checked(_lines(file, path), path)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    for number in itertools.count(1):
        line = file.readline(LONGEST)
        if not line:
            return
        if len(line) == LONGEST and line[-1] not in "\r\n":
            raise UserError(f"{path}:{number}: a line of more than {LONGEST:,} characters; is it a file of texts?")
        yield line


def beginning(path: Path, max_megabytes: int = MAX_MEGABYTES) -> str:
    """The first 4,096 characters of a text file; raises UserError as ``read_lines`` does."""
    with open_text(path, max_megabytes) as file:
        return next(checked(iter(lambda: file.read(4096), ""), path), "")


def is_array(path: Path, max_megabytes: int = MAX_MEGABYTES) -> bool:
    """Whether a JSON file begins with an array."""
    start = beginning(path, max_megabytes)
    return start.startswith("[", _space(start, 0))


def read_array(file: TextIO, path: Path) -> Iterator[tuple[int, str, Any]]:
    """The items of a file that is one JSON array, with their number and place; few are in memory at a time.

    Raises:
        UserError: malformed JSON, nested too deep, with a number too long, or an item longer than ``LONGEST``.
    """
    parts = checked(iter(lambda: file.read(2**16), ""), path)
    text, number, line = next(parts, ""), 0, 1
    place = _space(text, 0) + 1
    while not (number == 0 and text.startswith("]", _space(text, place))):
        place = _space(text, place)
        found, error = _item(text, place, f"{path}[{number}]")
        end = _space(text, found[1]) if found else len(text)
        if end == len(text):  # in the middle of an item, or perhaps of a number
            more = list(itertools.islice(parts, max(1, (len(text) - place) >> 16)))
            if not more or len(text) - place > LONGEST:
                at = line + text.count("\n", 0, error.pos if error else end)
                raise UserError(f"{path}:{at}: malformed JSON ({error.msg if error else 'the array does not end'})")
            line += text.count("\n", 0, place)
            text, place = text[place:] + "".join(more), 0
            continue
        if text[end] not in ",]":
            raise UserError(f"{path}:{line + text.count(chr(10), 0, end)}: malformed JSON (no comma between items)")
        number += 1
        yield number, f"{path}[{number - 1}]", found[0] if found else None
        place = end + 1
        if text[end] == "]":
            break
    rest = text[place:] if number else text[_space(text, place) + 1 :]
    if rest.strip() or any(part.strip() for part in parts):
        raise UserError(f"{path}: malformed JSON (text after the array)")


def _item(text: str, place: int, where: str) -> tuple[tuple[Any, int] | None, JSONDecodeError | None]:
    """The JSON value at ``place`` and where it ends, or why there is none."""
    try:
        return JSONDecoder().raw_decode(text, place), None
    except JSONDecodeError as error:
        return None, error
    except RecursionError as error:
        raise UserError(f"{where}: malformed JSON: nested too deep") from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise UserError(f"{where}: malformed JSON: {str(error).split(';')[0]}") from error


def _space(text: str, place: int) -> int:
    """The first place from ``place`` on that is no white space."""
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too


def read_whole(path: Path, max_megabytes: int) -> bytes:
    """A whole file, which need not be UTF-8; raises UserError as ``open_text`` does."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = read_at_most(file, max_megabytes * 10**6, 2**20)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > max_megabytes * 10**6:
        raise UserError(_too_large(path, max_megabytes))
    return content
