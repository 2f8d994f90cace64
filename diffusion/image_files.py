"""Image files in folders and archives of any nesting, as streams of bytes; none is decoded."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from PIL import Image

from files.errors import UserError
from files.limits import DAMAGED, MIB, Bounded, check_regular, most_unpacked, open_unpacked, read_at_most

if TYPE_CHECKING:
    from diffusion.config import ReadingConfig

Image.init()
_NO_PICTURES = ("MPEG", "HDF5", "EPS", "PDF", "GRIB", "BUFR", "WMF", "FITS")  # videos, documents, data
SUFFIXES = tuple(
    s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _NO_PICTURES
)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")
_LONGEST_NAME = MIB  # bytes of a header of names and attributes in a tar archive


class Entry(NamedTuple):
    """One image file, not decoded.

    Attributes:
        name: below the folder or in the archive.
        open: its content as a stream; raises UserError for what is no regular file or too large for an image.
        size: bytes that it takes in memory already.
        refused: why it is not read.
    """

    name: PurePosixPath
    open: Callable[[], IO[bytes]]
    size: int = 0
    refused: str = ""


def entries(path: Path, reading: "ReadingConfig") -> Iterator[Entry]:
    """The image files below a folder, in order of their names, or in an archive, in its order.

    Raises:
        UserError: neither is there, or a damaged archive, or one that unpacks to too much.
    """
    if path.is_dir():
        for file in sorted(file for file in _walk(path) if _is_image(file)):
            yield Entry(PurePosixPath(file.relative_to(path)), partial(_open_file, file, reading))
        return
    check_regular(path, missing="no such folder or archive")
    if not path.name.lower().endswith(ARCHIVES):
        raise UserError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVES)})")
    try:
        zipped = path.suffix.lower() == ".zip"
        yield from _zip_entries(path, reading) if zipped else _tar_entries(path, reading)
    except (tarfile.TarError, zipfile.BadZipFile, *DAMAGED, RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error


def _open_file(path: Path, reading: "ReadingConfig") -> IO[bytes]:
    try:
        size = check_regular(path)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path}: ")) from error
    if size > reading.max_bytes:
        raise UserError(_too_large(size, reading))
    return path.open("rb")


def _too_large(size: int, reading: "ReadingConfig") -> str:
    return f"{size:,} bytes are more than an image of --max_megapixels={reading.max_megapixels:g} megapixels takes"


def _walk(path: Path) -> Iterator[Path]:
    """Every file below, through links too, but no folder twice."""
    seen: set[str] = set()
    for folder, below, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        yield from (Path(folder) / name for name in names)


def _zip_entries(path: Path, reading: "ReadingConfig") -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if _is_image(PurePosixPath(member.filename))]
        if sum(member.file_size for member in members if member.file_size <= reading.max_bytes) > most_unpacked(path):
            raise UserError(_unpacks_to_too_much(path))
        for member in members:
            with archive.open(member) as stream:
                yield _read_entry(PurePosixPath(member.filename), member.file_size, stream, reading)


class _Member(tarfile.TarInfo):
    """A member whose name and attributes are of a sane length, since tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in b"xgXLK" and member.size > _LONGEST_NAME):
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _tar_entries(path: Path, reading: "ReadingConfig") -> Iterator[Entry]:
    with (
        open_unpacked(path) as unpacked,
        Bounded(unpacked, most_unpacked(path), _unpacks_to_too_much(path)) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive,  # type: ignore[call-overload]
    ):
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and _is_image(name):
                file = archive.extractfile(member)
                assert file is not None
                yield _read_entry(name, member.size, file, reading)


def _unpacks_to_too_much(path: Path) -> str:
    return (
        f"{path}: unpacks to more than {most_unpacked(path):,} bytes, as no archive of images should; if it is one, "
        "unpack it by hand and pass the folder"
    )


def _read_entry(name: PurePosixPath, size: int, stream: IO[bytes], reading: "ReadingConfig") -> Entry:
    """A member of an archive, in memory, if it is not too large."""
    if size > reading.max_bytes:
        refused = _too_large(size, reading)
        return Entry(name, partial(_refuse, refused), refused=refused)
    content = read_at_most(stream, size)
    return Entry(name, lambda: io.BytesIO(content), len(content))


def _refuse(reason: str) -> IO[bytes]:
    raise UserError(reason)


def _is_image(name: PurePosixPath | Path) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith("._")  # macOS leaves such shadows
