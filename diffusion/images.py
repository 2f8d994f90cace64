"""Image files in folders and archives → arrays: any format that Pillow reads."""

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from diffusion.image_files import Entry, entries
from files.cores import available_cores
from files.errors import UserError
from files.limits import MIB

if TYPE_CHECKING:
    from diffusion.config import ReadingConfig

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # --max_megapixels is looked at instead
_GRAY = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")
_AT_ONCE = 512  # files in memory, if they take no more than so many bytes before or after they are decoded:
_BYTES_AT_ONCE = 256 * MIB
_LARGE = threading.BoundedSemaphore(2)  # images of many pixels are decoded two at a time, whatever the number of cores
_MANY_PIXELS = 2**24


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
    sha256: str  # of their names and contents


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
    files = islice(entries(path, reading), skip, None)
    found = bool(skip)
    with ThreadPool(available_cores()) as pool, _pillows_limit(reading):
        while group := _group(files, first):
            found = True
            decoded = pool.map(partial(_decode, reading=reading, first=first), group)
            for entry, result in zip(group, decoded, strict=True):
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


def list_images(path: Path, reading: "ReadingConfig") -> Listing:
    """The image files in the order of ``stream_images``, and a hash of all that is in them."""
    digest, count = hashlib.sha256(), 0
    files = entries(path, reading)
    with ThreadPool(available_cores()) as pool:
        while group := _group(files, None, _AT_ONCE):
            for entry, content in zip(group, pool.map(_content_hash, group), strict=True):
                digest.update(repr((str(entry.name), content)).encode())
            count += len(group)
    return Listing(count, digest.hexdigest())


def _content_hash(entry: Entry) -> str:
    """Of a file's content, or why it is not read."""
    try:
        with entry.open() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a stream of bytes
    except (UserError, OSError) as error:
        return str(error)


def _group(files: Iterator[Entry], first: NamedImage | None, most: int = 0) -> list[Entry]:
    """The next files that are read together: one a core, and as many as fit once the size of an image is known."""
    most = most or available_cores()
    if first is not None:
        most = max(most, min(_AT_ONCE, _BYTES_AT_ONCE // max(1, first.pixels.nbytes)))
    group, size = [], 0
    for entry in islice(files, most):
        group.append(entry)
        size += entry.size
        if size > _BYTES_AT_ONCE or entry.refused:  # a refusal is told before the next file is looked for
            break
    return group


@contextlib.contextmanager
def _pillows_limit(reading: "ReadingConfig") -> Iterator[None]:
    """Pillow's own limit of pixels, no lower than ours; it holds for images inside of images, too."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max(before or 0, reading.max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_like_first(path: Path, first: NamedImage, image: NamedImage) -> None:
    a, b = first.pixels.shape, image.pixels.shape
    if a != b:
        raise UserError(
            f"{path}: images differ: {first.name} is {a[1]}×{a[0]} with {a[2]} channel(s), {image.name} is "
            f"{b[1]}×{b[0]} with {b[2]}; {'set --channels to 1 or 3' if a[:2] == b[:2] else 'set --image_size'}"
        )


def _decode(entry: Entry, reading: "ReadingConfig", first: NamedImage | None) -> np.ndarray | str:
    """[H, W, C] uint8, or an error message; an image of another size than the first is not decoded: it is all 0."""
    try:
        with entry.open() as stream, Image.open(stream) as opened:
            _check_pixels(opened, reading)
            channels = reading.channels or (1 if opened.mode in _GRAY else 3)
            if first and not reading.image_size and set(opened.size) != set(first.pixels.shape[:2]):
                return np.broadcast_to(np.uint8(0), (opened.height, opened.width, channels))
            with _LARGE if opened.width * opened.height > _MANY_PIXELS else contextlib.nullcontext():
                image: Image.Image = ImageOps.exif_transpose(opened)
                _check_pixels(image, reading)  # again: an icon's header need not be true
                channels = reading.channels or (1 if image.mode in _GRAY else 3)
                return _to_array(image, reading.image_size, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more pixels than --max_megapixels={reading.max_megapixels:g} allows"
    except Exception as error:  # a decoder may raise anything where a file is damaged
        return " ".join(str(error).split())[:200] or type(error).__name__


def _check_pixels(image: Image.Image, reading: "ReadingConfig") -> None:
    if image.width * image.height > reading.max_pixels:
        raise ValueError(
            f"{image.width:,}×{image.height:,} pixels are more than --max_megapixels={reading.max_megapixels:g} allows"
        )


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
