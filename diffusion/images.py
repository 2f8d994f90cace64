"""Image files → arrays: folders and archives of any nesting, any format that Pillow reads."""

import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zstandard
from PIL import Image, ImageOps

from files.errors import UserError

if TYPE_CHECKING:
    from diffusion.config import ReadingConfig

Image.init()
_NO_PICTURES = ("MPEG", "HDF5", "EPS", "PDF", "GRIB", "BUFR", "WMF", "FITS")  # videos, documents, data
SUFFIXES = tuple(
    s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _NO_PICTURES
)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")
_GRAY = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")
_AT_ONCE = 512  # files in memory before they are decoded


class Entry(NamedTuple):
    """One image file, not decoded."""

    name: PurePosixPath  # below the folder or in the archive
    content: Callable[[], bytes]


class NamedImage(NamedTuple):
    """One image, decoded."""

    name: PurePosixPath
    pixels: np.ndarray  # [H, W, C] uint8


class Loaded(NamedTuple):
    """Images of one size, in order of their names."""

    names: list[PurePosixPath]
    pixels: np.ndarray  # [N, H, W, C] uint8
    notes: list[str]  # files left out


class Listing(NamedTuple):
    """The image files of a folder or archive, none of them decoded."""

    num_files: int
    sha256: str  # of their names and sizes in bytes


OnProgress = Callable[[int], None]  # called with the number of images read


def ignore(done: int) -> None:
    """An ``OnProgress`` that does nothing."""


def read_images(path: Path, reading: "ReadingConfig", on_progress: OnProgress = ignore) -> Loaded:
    """Every image below a folder or in an archive.

    Args:
        path: a folder, or a file with a suffix in ``ARCHIVES``.
        reading: size and channels of the images, and whether files that cannot be read are left out, and noted.
        on_progress: told the number of images read.

    Raises:
        UserError: nothing there, a damaged file (named), or images of different sizes or channels.
    """
    found: list[NamedImage] = []
    notes: list[str] = []
    for image in stream_images(path, reading, notes):
        found.append(image)
        if len(found) % _AT_ONCE == 0:
            on_progress(len(found))
    on_progress(len(found))
    found.sort(key=lambda image: image.name.parts)
    return Loaded([image.name for image in found], np.stack([image.pixels for image in found]), notes)


def stream_images(
    path: Path, reading: "ReadingConfig", notes: list[str] | None = None, skip: int = 0
) -> Iterator[NamedImage]:
    """The images of ``read_images`` one by one, in the order of the folder or archive; few are in memory at a time.

    Where ``reading.skip_bad_images``, errors about single files are appended to ``notes``; the first
    ``skip`` files are not read.
    """
    first: NamedImage | None = None
    entries = islice(_entries(path), skip, None)
    found = bool(skip)
    with ThreadPool(os.cpu_count()) as pool:
        while chunk := list(islice(entries, _AT_ONCE)):
            found = True
            for entry, result in zip(chunk, pool.map(lambda e: _decode(e, reading), chunk), strict=True):
                if isinstance(result, str):
                    message = f"{path / entry.name}: not a readable image ({result})"
                    if not reading.skip_bad_images:
                        raise UserError(f"{message}; fix or remove it, or leave such files out with --skip_bad_images")
                    if notes is not None:
                        notes.append(message)
                    continue
                image = NamedImage(entry.name, result)
                first = first or image
                _check_like_first(path, first, image)
                yield image
    if not found or (first is None and not skip):
        raise UserError(f"{path}: no images there (looked for .png, .jpg and whatever else Pillow reads, in any case)")


def list_images(path: Path) -> Listing:
    """The image files in the order of ``stream_images``."""
    if path.is_dir():
        listed = [(str(entry.name), (path / entry.name).stat().st_size) for entry in _entries(path)]
    else:
        listed = [(str(entry.name), len(entry.content())) for entry in _entries(path)]
    return Listing(len(listed), hashlib.sha256(repr(listed).encode()).hexdigest())


def _check_like_first(path: Path, first: NamedImage, image: NamedImage) -> None:
    a, b = first.pixels.shape, image.pixels.shape
    if a != b:
        raise UserError(
            f"{path}: images differ: {first.name} is {a[1]}×{a[0]} with {a[2]} channel(s), {image.name} is "
            f"{b[1]}×{b[0]} with {b[2]}; {'set --channels to 1 or 3' if a[:2] == b[:2] else 'set --image_size'}"
        )


def _decode(entry: Entry, reading: "ReadingConfig") -> np.ndarray | str:
    """[H, W, C] uint8, or an error message."""
    try:
        with Image.open(io.BytesIO(entry.content())) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            channels = reading.channels or (1 if image.mode in _GRAY else 3)
            return _to_array(image, reading.image_size, channels)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
    ) as error:  # Pillow raises them all
        return str(error).replace(os.linesep, " ") or type(error).__name__


def _to_array(image: Image.Image, size: int, channels: int) -> np.ndarray:
    if image.mode in ("F", "I"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no known range; save them with 8 or 16")
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip them
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _entries(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        for file in sorted(file for file in _walk(path) if _is_image(file)):
            yield Entry(PurePosixPath(file.relative_to(path)), file.read_bytes)
        return
    if not path.is_file():
        raise UserError(f"{path}: no such folder or archive")
    if not path.name.lower().endswith(ARCHIVES):
        raise UserError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVES)})")
    try:
        yield from _zip_entries(path) if path.suffix.lower() == ".zip" else _tar_entries(path)
    except (tarfile.TarError, zipfile.BadZipFile, zstandard.ZstdError, zlib.error, lzma.LZMAError, EOFError, OSError,
            RuntimeError, NotImplementedError) as error:  # fmt: skip
        raise UserError(f"{path}: damaged or truncated archive ({error}); fetch it again") from error


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


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _is_image(PurePosixPath(name)):
                yield _read_entry(PurePosixPath(name), archive.read(name))


def _tar_entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as raw:
        packed = path.suffix.lower() == ".zst"
        stream: Any = zstandard.ZstdDecompressor().stream_reader(raw) if packed else raw
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isfile() and _is_image(name):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield _read_entry(name, file.read())


def _read_entry(name: PurePosixPath, content: bytes) -> Entry:
    return Entry(name, lambda: content)


def _is_image(name: PurePosixPath | Path) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith("._")  # macOS leaves such shadows
