"""Image files → arrays: folders and archives of any nesting, any format that Pillow reads."""

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
from typing import Any, NamedTuple

import numpy as np
import zstandard
from PIL import Image, ImageOps

from training.errors import UserError

Image.init()
_NO_PICTURES = ("MPEG", "HDF5", "EPS", "PDF", "GRIB", "BUFR", "WMF", "FITS")  # films, documents, data
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


class Loaded(NamedTuple):
    """Images of one size, in order of their names."""

    names: list[PurePosixPath]
    pixels: np.ndarray  # [N, H, W, C] uint8
    notes: list[str]  # files left out


def read_images(
    path: Path,
    size: int = 0,
    channels: int = 0,
    skip_bad: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Loaded:
    """Every image below a folder or in an archive.

    Args:
        path: a folder, or a file with a suffix in ``ARCHIVES``.
        size: crop the middle square and resize it (antialiased) to this; 0 keeps the images as they are.
        channels: 1 or 3; 0 for what the files have.
        skip_bad: leave out files that cannot be read, and note them.
        on_progress: told the number of images read.

    Raises:
        UserError: nothing there, a damaged file (named), or images of different sizes or channels.
    """
    names: list[PurePosixPath] = []
    arrays: list[np.ndarray] = []
    notes: list[str] = []
    for name, pixels in stream_images(path, size, channels, notes if skip_bad else None):
        names.append(name)
        arrays.append(pixels)
        if len(names) % _AT_ONCE == 0:
            on_progress(len(names))
    on_progress(len(names))
    order = sorted(range(len(names)), key=lambda place: names[place].parts)
    return Loaded([names[i] for i in order], np.stack([arrays[i] for i in order]), notes)


def stream_images(
    path: Path, size: int = 0, channels: int = 0, notes: list[str] | None = None, skip: int = 0
) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
    """The images of ``read_images`` one by one, in the order of the folder or archive; few are in memory at a time.

    ``notes`` takes the place of errors about single files; ``skip`` files are passed over unread.
    """
    first: tuple[PurePosixPath, np.ndarray] | None = None
    entries = islice(_entries(path), skip, None)
    found = bool(skip)
    with ThreadPool(os.cpu_count()) as pool:
        while chunk := list(islice(entries, _AT_ONCE)):
            found = True
            for entry, result in zip(chunk, pool.map(lambda e: _decode(e, size, channels), chunk), strict=True):
                if isinstance(result, str):
                    message = f"{path / entry.name}: not a readable image ({result})"
                    if notes is None:
                        raise UserError(f"{message}; mend or remove it, or leave such files out with --skip_bad_images")
                    notes.append(message)
                    continue
                first = first or (entry.name, result)
                _check_like_first(path, first, entry.name, result)
                yield entry.name, result
    if not found or (first is None and not skip):
        raise UserError(f"{path}: no images there (looked for .png, .jpg and whatever else Pillow reads, in any case)")


def list_images(path: Path) -> list[tuple[str, int]]:
    """Name and size in bytes of every image file, in the order of ``stream_images``; nothing is decoded."""
    if path.is_dir():
        return [(str(name), (path / name).stat().st_size) for name, _ in _entries(path)]
    return [(str(name), len(content())) for name, content in _entries(path)]


def _check_like_first(
    path: Path, first: tuple[PurePosixPath, np.ndarray], name: PurePosixPath, pixels: np.ndarray
) -> None:
    a, b = first[1].shape, pixels.shape
    if a != b:
        raise UserError(
            f"{path}: images differ: {first[0]} is {a[1]}×{a[0]} with {a[2]} channel(s), {name} is {b[1]}×{b[0]} with "
            f"{b[2]}; {'set --channels to 1 or 3' if a[:2] == b[:2] else 'set --image_size'}"
        )


def _decode(entry: Entry, size: int, channels: int) -> np.ndarray | str:
    """[H, W, C] uint8, or what is wrong."""
    try:
        with Image.open(io.BytesIO(entry.content())) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            return _to_array(image, size, channels or (1 if image.mode in _GRAY else 3))
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
                yield _held(PurePosixPath(name), archive.read(name))


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
                    yield _held(name, file.read())


def _held(name: PurePosixPath, content: bytes) -> Entry:
    return Entry(name, lambda: content)


def _is_image(name: PurePosixPath | Path) -> bool:
    return name.suffix.lower() in SUFFIXES and not name.name.startswith("._")  # macOS leaves such shadows
