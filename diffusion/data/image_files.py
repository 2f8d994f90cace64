"""Image files in folders and archives of any nesting, as streams of bytes; nothing is decoded."""

import contextlib
import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from PIL import Image

from diffusion.data.folders import is_system
from diffusion.wording import counted
from files.documents import shown
from files.errors import UserError
from files.limits import (
    DAMAGED,
    MIB,
    Bounded,
    check_regular,
    is_packed,
    is_tar,
    is_zip,
    most_unpacked,
    open_unpacked,
    read_at_most,
)

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig

Image.init()
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
_NO_PICTURES = ("MPEG", "HDF5", "EPS", "PDF", "GRIB", "BUFR", "WMF", "FITS")  # videos, documents, data
FORMATS = tuple(kind for kind in Image.OPEN if kind not in _NO_PICTURES)  # by content, not by suffix
SUFFIXES = (".mpo", *(s for s, kind in Image.registered_extensions().items() if kind in FORMATS))
ARRAY = ".npy"  # one image a file, if there are no other image files
_HEIC = (".heic", ".heics", ".heif", ".heifs", ".hif")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, *DAMAGED, RuntimeError, NotImplementedError, ValueError)
_LONGEST_NAME = MIB  # bytes of a tar header with a name or attributes


class Entry(NamedTuple):
    """One image file, not decoded.

    Attributes:
        name: below the folder or in the archive.
        open: opens its content as a stream; raises UserError if it is no regular file, or too large for an image.
        size: bytes of its content that are in memory already.
        refused: why it is not read; empty if it is.
    """

    name: PurePosixPath
    open: Callable[[], IO[bytes]]
    size: int = 0
    refused: str = ""


class Ignored:
    """Counts of files that are not opened: hidden files, files of systems, and files without an image's suffix."""

    def __init__(self) -> None:
        self._by_suffix: Counter[str] = Counter()
        self._hidden, self._example, self._hidden_example = 0, "", ""

    def is_image(self, name: PurePosixPath, arrays: bool = False) -> bool:
        """Whether a file is read as an image; counts it if it is not. ``arrays``: whether .npy files are images."""
        suffix = name.suffix.lower()
        if arrays and suffix == ARRAY and not is_system(name):
            return True
        if is_system(name):
            if suffix in SUFFIXES:
                self._hidden += 1
                self._hidden_example = self._hidden_example or str(name)
            return False
        if suffix not in SUFFIXES:
            self._by_suffix[suffix] += 1
            self._example = self._example or str(name)
            return False
        return True

    def notes(self) -> list[str]:
        """Notes on the files that were left out, by suffix, with a remedy if there is one."""
        notes = []
        if self._by_suffix:
            ranked = sorted(self._by_suffix.items(), key=lambda one: (-one[1], one[0]))
            listed = [f"{count:,} {_suffix(suffix)}" for suffix, count in ranked[:8]]
            rest = sum(count for _, count in ranked[8:])
            listed += [f"{rest:,} of {len(ranked) - 8:,} other suffixes"] if rest else []
            notes.append(
                f"{counted(self._by_suffix.total(), 'file')} left out, without the suffix of an image: "
                f"{', '.join(listed)}; such as {shown(self._example)}"
            )
        if self._hidden:
            notes.append(
                f"{counted(self._hidden, 'hidden image')} left out, or in folders of a system, such as "
                f"{shown(self._hidden_example)}"
            )
        return notes


def _suffix(suffix: str) -> str:
    if suffix in _HEIC:
        return f"{suffix} (pip install pillow-heif to read them)"
    return shown(suffix, 20)[1:-1] if suffix else "without a suffix"


def entries(path: Path, reading: "ReadingConfig", ignored: Ignored | None = None) -> Iterator[Entry]:
    """The image files below a folder, in order of their names, or in an archive, in its order.

    Args:
        path: the folder or archive.
        reading: how large they may be.
        ignored: counts the files that are left out.

    Raises:
        UserError: there is no folder or archive, or the archive is damaged or unpacks to too many bytes.
    """
    is_image = (ignored or Ignored()).is_image
    if path.is_dir():
        named = [(PurePosixPath(file.relative_to(path)), file) for file in sorted(_walk(path))]
        arrays = _are_arrays(name for name, _ in named)
        yield from (Entry(name, partial(_open_file, file, reading)) for name, file in named if is_image(name, arrays))
        return
    check_regular(path, missing="no such folder or archive")
    if not path.name.lower().endswith(ARCHIVES):
        hint = "; arrays are read with --dataset=npz" if path.suffix.lower() in (ARRAY, ".npz") else ""
        raise UserError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVES)}){hint}")
    try:
        yield from _zip_entries(path, reading, is_image) if _is_zip(path) else _tar_entries(path, reading, is_image)
    except _DAMAGED as error:
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error


def _is_zip(path: Path) -> bool:
    """Whether an archive is a zip archive and no tar archive, by its first bytes; its suffix may be wrong."""
    if is_zip(path):
        return True
    with path.open("rb") as file:
        return path.suffix.lower() == ".zip" and not is_packed(path) and not is_tar(file.read(512))


def _open_file(path: Path, reading: "ReadingConfig") -> IO[bytes]:
    try:
        size = check_regular(
            path, missing="a link to a file that is not there" if path.is_symlink() else "no such file"
        )
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path}: ")) from error
    if size > reading.max_bytes:
        raise UserError(_too_large(size, reading))
    return path.open("rb")


def _too_large(size: int, reading: "ReadingConfig") -> str:
    return f"{size:,} bytes are more than an image of --max_megapixels={reading.max_megapixels:g} megapixels takes"


def _walk(path: Path) -> Iterator[Path]:
    """Every file below a folder, also through links: a folder with two names is two folders.

    Only a circle is left: a folder is not entered again below itself. So what is found does not depend on the order in
    which the system lists a folder.
    """
    waiting: list[tuple[Path, frozenset[str]]] = [(path, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(folder)
        if real in above:
            continue
        _, below, names = next(os.walk(folder), (folder, [], []))
        yield from (folder / name for name in names)
        waiting += [(folder / name, above | {real}) for name in below]


def _are_arrays(names: Iterable[PurePosixPath]) -> bool:
    """Whether .npy files are the images: only if there are no other image files."""
    return not any(name.suffix.lower() in SUFFIXES and not is_system(name) for name in names)


IsImage = Callable[..., bool]  # of ``Ignored``


def _zip_entries(path: Path, reading: "ReadingConfig", is_image: IsImage) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        named = [(_inside(member.filename.replace("\\", "/")), member) for member in archive.infolist()]
        arrays = _are_arrays(name for name, _ in named)
        found = [(name, member) for name, member in named if not member.is_dir() and is_image(name, arrays)]
        members = [member for _, member in found]
        if sum(member.file_size for member in members if member.file_size <= reading.max_bytes) > most_unpacked(path):
            raise UserError(_unpacks_to_too_much(path))
        for name, member in found:
            try:
                with archive.open(member) as stream:
                    entry = _read_entry(name, member.file_size, stream, reading)
            except _DAMAGED as error:  # the others are whole
                reason = f"damaged in the archive: {' '.join(str(error).split())[:200]}"
                entry = Entry(name, partial(_refuse, reason), refused=reason)
            yield entry


def _inside(name: str) -> PurePosixPath:
    """A member's name as a path inside the archive, without a leading slash or ``..``."""
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "//", "..")))


class _Member(tarfile.TarInfo):
    """A member that refuses very long names and attributes, since tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in b"xgXLK" and member.size > _LONGEST_NAME):
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def _tar_entries(path: Path, reading: "ReadingConfig", is_image: IsImage) -> Iterator[Entry]:
    arrays: bool | None = None  # not known before the first file that is one or an image
    with _open_tar(path) as archive:
        for member in archive:
            name = _inside(member.name)
            if arrays is None and not is_system(name) and name.suffix.lower() in (ARRAY, *SUFFIXES):
                arrays = name.suffix.lower() == ARRAY and _are_arrays(_tar_names(path))
            if member.isdir() or not is_image(name, bool(arrays)):
                continue
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                yield _read_entry(name, member.size, file, reading)
            else:
                refused = _no_file(member)
                yield Entry(name, partial(_refuse, refused), refused=refused)


@contextlib.contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        open_unpacked(path) as unpacked,
        Bounded(unpacked, most_unpacked(path), _unpacks_to_too_much(path)) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive,  # type: ignore[call-overload]
    ):
        yield archive


def _tar_names(path: Path) -> list[PurePosixPath]:
    with _open_tar(path) as archive:
        return [_inside(member.name) for member in archive if not member.isdir()]


def _no_file(member: tarfile.TarInfo) -> str:
    """Why a member that is no regular file is not read. Links are not followed: an archive is read once, in order."""
    if member.issym() or member.islnk():
        kind = "a symbolic link" if member.issym() else "a hard link"
        return f"{kind} to {shown(member.linkname)}, which is not followed in an archive; unpack it and give the folder"
    return "no regular file"


def _unpacks_to_too_much(path: Path) -> str:
    return (
        f"{path}: unpacks to more than {most_unpacked(path):,} bytes, as no archive of images should; if it is one, "
        "unpack it by hand and pass the folder"
    )


def _read_entry(name: PurePosixPath, size: int, stream: IO[bytes], reading: "ReadingConfig") -> Entry:
    """A member of an archive, read into memory unless it is too large."""
    if size > reading.max_bytes:
        refused = _too_large(size, reading)
        return Entry(name, partial(_refuse, refused), refused=refused)
    content = read_at_most(stream, size)
    return Entry(name, lambda: io.BytesIO(content), len(content))


def _refuse(reason: str) -> IO[bytes]:
    raise UserError(reason)
