"""Text files as streams, compressed or not, with limits on memory and time that no content can exceed."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from files.errors import UserError
from files.limits import DAMAGED, check_regular, is_packed, is_zip, read_at_most
from files.text_bytes import encoding_of, open_bytes, too_large

ROWS_A_MEGABYTE = 20_000  # limit of rows per megabyte, because even short rows take memory
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")  # of the files of a named data set
MAX_MEGABYTES = 500
BEGINNING = 2**16  # characters at the start that decide how a file is read
LONGEST = 2**24  # characters of a line, of a row of CSV (which may have several lines) and of an item of an array
_NOT_IN_CP1252 = {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # bytes that Windows-1252 does not use
_REMEDY = "say what it is, such as --encoding=cp1252 (Windows), latin-1 or utf-16"
_ESCAPED_QUOTE = re.compile(rb'\\\x00{0,3}"')  # in UTF-8, UTF-16 and UTF-32


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Replaces a byte by half a character, as Python does in undecodable arguments; no decoded text contains one."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.object[error.start]), error.end


MARKING = "text_cls.marking"  # ``errors`` of a decoder that marks undecodable bytes, which ``undecodable`` finds
codecs.register_error(MARKING, _mark)
_MARKED = re.compile("[\udc00-\udcff]")


def undecodable(line: str, encoding: str) -> str:
    """The error in a line that was decoded with ``MARKING``; "" if there is none."""
    found = None if line.isascii() else _MARKED.search(line)
    name = encoding.upper().removesuffix("-SIG")
    return f"not {name} (byte 0x{ord(found[0]) - 0xDC00:02x}); {_REMEDY}" if found else ""


def check_encoding(name: str) -> None:
    """Raises UserError for an unknown encoding."""
    try:
        if name != "auto":
            "a".encode(name)
    except (LookupError, UnicodeError, ValueError) as error:
        raise UserError(f"--encoding={name} is not known: use auto, utf-8, cp1252, latin-1, utf-16, …") from error


def open_text(path: Path, max_megabytes: int = MAX_MEGABYTES, encoding: str = "auto", errors: str = "strict") -> TextIO:
    """Opens a text file; gzip, bzip2, xz, zstandard and a zip of one file are recognised by content, and unpacked.

    Args:
        path: the file.
        max_megabytes: the largest size, unpacked.
        encoding: Python's name of the encoding; ``auto`` is UTF-8. A byte order mark overrides it.
        errors: for bytes that cannot be decoded: ``strict`` or ``MARKING``.

    Raises:
        UserError: the file is not regular, empty or no text; or, while it is read, larger than ``max_megabytes``.
    """
    size = check_regular(path)
    if size == 0:
        raise UserError(f"{path}: the file is empty")
    if size > max_megabytes * 10**6:
        raise UserError(too_large(path, max_megabytes))
    with open_bytes(path, max_megabytes) as file:
        start = next(checked(iter(lambda: read_at_most(file, 511), b""), path), b"")
    name = encoding_of(path, start, encoding)
    return io.TextIOWrapper(open_bytes(path, max_megabytes), encoding=name, errors=errors, newline="")


def position(file: TextIO) -> int:
    """The position in a file that ``open_text`` opened, in bytes of the file on disk, which may be compressed."""
    raw: Any = file.buffer
    return raw.raw.file.tell()


def check_size(path: Path, max_megabytes: int) -> None:
    """Unpacks a compressed file once, to check its size before rows are kept; raises UserError as ``open_text``."""
    if check_regular(path) and (is_zip(path) or is_packed(path)):
        with open_bytes(path, max_megabytes) as file:
            for _ in checked(iter(lambda: file.read(2**20), b""), path):
                pass


def has_escaped_quotes(path: Path, max_megabytes: int) -> bool:
    r"""Whether a file contains ``\"``; reads the whole file, so its size is checked before rows are kept.

    Raises:
        UserError: as ``open_text``.
    """
    check_regular(path)
    found, end = False, b""
    with open_bytes(path, max_megabytes) as file:
        for part in checked(iter(lambda: file.read(2**20), b""), path):
            found = found or _ESCAPED_QUOTE.search(end + part) is not None
            end = part[-4:]
    return found


def checked(parts: Iterator, path: Path) -> Iterator:
    """Yields the items; a damaged archive, a wrong encoding or malformed CSV becomes a UserError."""
    try:
        yield from parts
    except UnicodeError as error:
        raise UserError(f"{path}: {_undecodable(error)}; {_REMEDY}") from error
    except (*DAMAGED, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error})") from error


def _undecodable(error: UnicodeError) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return f"cannot be decoded ({error})"
    return f"not {error.encoding.upper()} ({error.reason}: byte 0x{error.object[error.start]:02x})"


def read_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of an open text file, with their ends.

    Raises:
        UserError: the archive is damaged, the encoding is wrong, or a line has more than ``LONGEST`` characters.
    """
    return checked(_lines(file, path), path)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(_pieces(file, path, LONGEST), start=1):
        check_line(line, f"{path}:{number}")
        yield line


def check_line(line: str, where: str) -> None:
    """Raises UserError for a line of ``LONGEST`` characters without a line end."""
    if len(line) >= LONGEST and line[-1] not in "\r\n":
        raise UserError(f"{where}: a line of more than {LONGEST:,} characters; is it a file of texts?")


def _pieces(file: TextIO, path: Path, size: int) -> Iterator[str]:
    """Lines; a line of more than ``size`` characters is given in parts."""
    number = 1
    while True:
        try:
            piece = file.readline(size)
        except UnicodeDecodeError as error:
            at = number + error.object[: error.start].count(b"\n")
            raise UserError(f"{path}:{at}: {_undecodable(error)}; {_REMEDY}") from error
        if not piece:
            return
        number += piece[-1] in "\r\n"
        yield piece


def beginning(path: Path, max_megabytes: int = MAX_MEGABYTES, encoding: str = "auto") -> str:
    """The first lines of a text file, together at least ``BEGINNING`` characters, or the beginning of a longer line.

    Raises:
        UserError: as ``read_lines``.
    """
    text, size = [], 0
    with open_text(path, max_megabytes, encoding) as file:
        for piece in checked(_pieces(file, path, BEGINNING), path):
            text.append(piece)
            size += len(piece)
            if size >= BEGINNING:
                break
    return "".join(text)


def read_whole(path: Path, max_megabytes: int) -> bytes:
    """The bytes of a whole file; raises UserError as ``open_text``."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = read_at_most(file, max_megabytes * 10**6, 2**20)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > max_megabytes * 10**6:
        raise UserError(too_large(path, max_megabytes))
    return content


def decode(path: Path, content: bytes, encoding: str = "auto") -> tuple[str, str]:
    """The text of a file, and its encoding; with ``auto``, a file that is not UTF-8 is read as Windows-1252.

    Raises:
        UserError: the file is no text, or has another encoding than ``encoding``.
    """
    name = encoding_of(path, content[:64], encoding)
    try:
        return content.decode(name), name
    except UnicodeError as error:
        if encoding == "auto" and name == "utf-8":
            name = "latin-1" if set(content) & _NOT_IN_CP1252 else "cp1252"
            return content.decode(name), name
        raise UserError(f"{path}: {_undecodable(error)}; {_REMEDY}") from error
