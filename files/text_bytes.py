"""Text files as bytes: packed or not, of which kind and in which encoding."""

import codecs
import contextlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from files.errors import UserError
from files.limits import Bounded, is_tar, is_zip, open_unpacked

_MARKS = (  # byte order marks, the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = {  # first bytes → kind of file
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\xd0\xcf\x11\xe0": "an Excel workbook or another Office document",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    **dict.fromkeys([b"\x80" + bytes([k]) for k in range(2, 6)], "a pickle file of Python"),
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    **dict.fromkeys((b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), "packed twice"),
}
CONVERT = "unpack it, or convert it to CSV or JSON lines"


def open_zip(path: Path, file: BinaryIO) -> Any:
    """The one file in a zip, not counting the files that macOS adds."""
    try:
        archive = zipfile.ZipFile(file)
        names = [name for name in archive.namelist() if not re.search(r"/$|(^|/)(\.|__MACOSX/)", name)]
        if "[Content_Types].xml" in names:
            raise UserError(f"{path}: an Office document (Excel, Word); save its table as CSV")
        if len(names) != 1:
            listed = f" ({', '.join(name[:40] for name in names[:5])}{', …' if len(names) > 5 else ''})"
            raise UserError(f"{path}: a zip of {len(names):,} files{listed if names else ''}, not of one; unpack it")
        return archive.open(names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{path}: a zip that cannot be unpacked ({error}); unpack it by hand") from error


class _Unpacked(Bounded):
    """A file's unpacked bytes; keeps the file itself."""

    def __init__(self, file: BinaryIO, stream: Any, most: int, message: str) -> None:
        super().__init__(stream, most, message)
        self.file = file

    def close(self) -> None:
        super().close()
        self.file.close()


def open_bytes(path: Path, max_megabytes: int) -> io.BufferedReader:
    """A file's bytes, unpacked; raises UserError after ``max_megabytes``, and for a zip of several files."""
    with contextlib.ExitStack() as undo:
        try:
            file = undo.enter_context(path.open("rb"))
            stream = open_zip(path, file) if is_zip(path) else open_unpacked(path, file)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        undo.pop_all()
    unpacked = _Unpacked(file, stream, max_megabytes * 10**6, too_large(path, max_megabytes))
    return io.BufferedReader(unpacked, 2**17)


def encoding_of(path: Path, start: bytes, encoding: str, remedy: str = CONVERT) -> str:
    """The encoding of a file that begins with ``start``.

    Args:
        path: the file, for messages.
        start: its first bytes, unpacked.
        encoding: Python's name of the encoding; ``auto`` is UTF-8. A byte order mark overrides it.
        remedy: what to do with a file that is no text.

    Raises:
        UserError: the file is no text.
    """
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    kind = next((kind for magic, kind in _NO_TEXT.items() if start.startswith(magic)), None)
    kind = "a tar archive" if is_tar(start) else kind
    if kind:
        raise UserError(f"{path}: {kind}, not a text file; {remedy}")
    if marked:
        return marked
    if encoding != "auto":
        if codecs.lookup(encoding).name in ("utf-16", "utf-32"):
            raise UserError(f"{path}: no byte order mark; set --encoding={encoding}-le or {encoding}-be")
        return encoding
    start = start[:64]
    even, odd = start[::2].count(0), start[1::2].count(0)
    for zeros, others, name in ((even, odd, "utf-16-be"), (odd, even, "utf-16-le")):
        if zeros > max(4, len(start) // 4) and not others:
            raise UserError(f"{path}: every other byte is 0: UTF-16 without a byte order mark? set --encoding={name}")
    return "utf-8"


def too_large(path: Path, max_megabytes: int) -> str:
    """The message for a file of more than ``max_megabytes``."""
    return f"{path}: more than {max_megabytes:,} MB of text; if it is meant to be so large, raise --max_megabytes"
