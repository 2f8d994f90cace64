"""Limits on reading: regular files only, and never more bytes than a reader allows."""

import bz2
import gzip
import io
import lzma
import stat
import zlib
from pathlib import Path
from typing import Any

import zstandard

from files.errors import UserError

MIB = 2**20
# Errors of reading damaged packed data; GzipFile's own error is an OSError.
DAMAGED = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, OSError)
_PACKED = 1024  # bytes of zstandard unpacked at a time: they can become 32 MiB
_MAGIC: dict[bytes, Any] = {  # first bytes of a file → the function that opens it
    b"\x28\xb5\x2f\xfd": lambda path, mode: io.BufferedReader(ZstandardReader(path)),
    b"\x1f\x8b": gzip.open,
    **{b"BZh%d1AY&SY" % level: bz2.open for level in range(1, 10)},
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00": lzma.open,
}


def check_regular(path: Path, most: int | None = None, missing: str = "no such file") -> int:
    """The size in bytes of a file that can be read to its end.

    Args:
        path: the file, or a link to it.
        most: the most bytes that it may have.
        missing: the message if it does not exist.

    Raises:
        UserError: there is no such file, it is too large, or a folder, a pipe, a socket or a device.
    """
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UserError(f"{path}: {missing}") from error
    except OSError as error:
        raise UserError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):
        raise UserError(f"{path}: not a regular file")
    if most is not None and about.st_size > most:
        raise UserError(f"{path}: {about.st_size:,} bytes; at most {most:,} are read of such a file")
    return about.st_size


def read_at_most(stream: Any, most: int, at_a_time: int = 4096) -> bytes:
    """Everything in a stream of bytes, or the first ``most`` + 1.

    Reads in small steps: some unpackers return everything that n packed bytes contain, even if less was asked for.
    """
    parts, size = [], 0
    while size <= most and (part := stream.read(min(at_a_time, most + 1 - size))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class Bounded(io.RawIOBase):
    """A stream of bytes that raises UserError with ``message`` after ``most`` bytes."""

    def __init__(self, stream: Any, most: int, message: str) -> None:
        super().__init__()
        self._stream, self._left, self._message = stream, most, message

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(min(len(buffer), self._left + 1))
        self._left -= len(part)
        if self._left < 0:
            raise UserError(self._message)
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


class ZstandardReader(io.RawIOBase):
    """Unpacks zstandard frames, one after the other; the library's own reader does not notice a truncated file.

    Raises:
        EOFError: the file ends in the middle of a frame.
    """

    def __init__(self, file: Any) -> None:
        """``file`` is a path, or open."""
        super().__init__()
        self._raw = file.open("rb") if isinstance(file, Path) else file
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._packed = self._packed or self._raw.read(_PACKED)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready, self._packed = memoryview(self._frame.decompress(self._packed)), b""
            if self._frame.eof:
                self._frame, self._packed = None, self._frame.unused_data
        part = self._ready[: len(buffer)]
        buffer[: len(part)] = part
        self._ready = self._ready[len(part) :]
        return len(part)

    def close(self) -> None:
        self._raw.close()
        super().close()


def is_zip(path: Path) -> bool:
    """Whether a file begins like a zip: with members, empty, or in parts."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with ``start``, 262 bytes or more, is a tar archive."""
    return start[257:262] == b"ustar"


def is_packed(path: Path) -> bool:
    """Whether ``open_unpacked`` unpacks the file."""
    return _opener(path) is not open


def open_unpacked(path: Path, raw: Any = None) -> Any:
    """A file's bytes, unpacked if it begins like gzip, bzip2, xz or zstandard; ``raw``: the file if it is open."""
    opener = _opener(path)
    return raw if raw is not None and opener is open else opener(raw or path, "rb")


def _opener(path: Path) -> Any:
    with path.open("rb") as raw:
        start = raw.read(10)
    return next((opener for magic, opener in _MAGIC.items() if start.startswith(magic)), open)


def most_unpacked(path: Path) -> int:
    """The most bytes that an archive of images may unpack to; images are compressed already, so real ones need less."""
    return 100 * path.stat().st_size + 1024 * MIB
