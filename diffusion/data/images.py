"""Image files in folders and archives → arrays. Reads every format that Pillow reads."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from functools import partial, reduce
from itertools import chain, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from diffusion.data.decoding import Decoded, NeedsRange, Refused, decode, extremes, is_deep, quiet
from diffusion.data.image_files import Entry, Ignored, entries
from diffusion.data.image_report import NO_SCALE, IsKept, Report, Scale
from diffusion.data.pixel_ranges import Extremes, Range, choose_range
from diffusion.wording import shown_path
from files.cores import available_cores
from files.errors import UserError
from files.limits import MIB

if TYPE_CHECKING:
    from diffusion.data.config import ReadingConfig

_AT_ONCE = 512  # files in memory, or fewer if they take more bytes than the next number, packed or decoded
_BYTES_AT_ONCE = 256 * MIB


class NamedImage(NamedTuple):
    """One decoded image. A file's frames from the second on have the frame's number at the end of their name."""

    name: PurePosixPath
    pixels: np.ndarray  # [H, W, C] uint8
    file: int = 0  # number of its file
    frame: int = 0


class Loaded(NamedTuple):
    """Images of one size, in order of their names."""

    names: list[PurePosixPath]
    pixels: np.ndarray  # [N, H, W, C] uint8
    notes: list[str]  # files that were left out, and choices that were made for others
    range: Range | None = None  # black and white of pixels of more than 8 bits, if found from these pixels
    files: tuple[int, ...] = ()  # the number of each image's file, which may have several


class Listing(NamedTuple):
    """The image files of a folder or archive, none of them decoded."""

    num_files: int
    sha256: str  # of the files' names and contents
    is_deep: bool = False  # whether a file may have pixels of more than 8 bits
    notes: tuple[str, ...] = ()  # files that are no images
    contents: tuple[bytes, ...] = ()  # a hash of each file
    folders: frozenset[PurePosixPath] = frozenset()  # of the files


OnProgress = Callable[[int], None]  # called with the number of images read


def ignore(done: int) -> None:
    """An ``OnProgress`` that does nothing."""


def read_images(
    path: Path, reading: "ReadingConfig", on_progress: OnProgress = ignore, is_kept: IsKept | None = None
) -> Loaded:
    """Every image below a folder or in an archive.

    Args:
        path: a folder, or a file with a suffix in ``ARCHIVES``.
        reading: size and channels of the images, and whether unreadable files are left out with a note.
        on_progress: called with the number of images read.
        is_kept: names of images → which of them decide the range of black and white; None: all of them.

    Raises:
        UserError: nothing there, a damaged file (named), or images of different sizes or channels.
    """
    names, files, notes, ranges = list[PurePosixPath](), list[int](), list[str](), list[Range]()
    pixels = np.empty(0, np.uint8)
    for image in stream_images(path, reading, notes, ranges=ranges, is_kept=is_kept):
        if not names:
            pixels = np.empty((0, *image.pixels.shape), np.uint8)
        if len(names) == len(pixels):  # grown in place: stacking a list would need the memory twice
            pixels.resize((len(names) + max(64, len(names) // 8), *image.pixels.shape), refcheck=False)
        pixels[len(names)] = image.pixels
        names.append(image.name)
        files.append(image.file)
        if len(names) % _AT_ONCE == 0:
            on_progress(len(names))
    on_progress(len(names))
    pixels.resize((len(names), *pixels.shape[1:]), refcheck=False)
    order = sorted(range(len(names)), key=lambda row: names[row].parts)
    arrange(pixels, order)
    used = ranges[0] if ranges else None
    return Loaded([names[row] for row in order], pixels, notes, used, tuple(files[row] for row in order))


def arrange(rows: np.ndarray, order: Collection[int]) -> None:
    """Reorders the rows of an array in place: the new row i is the old row order[i]."""
    places = np.array(list(order), np.int64)
    for start in np.flatnonzero(places != np.arange(len(places))).tolist():
        if places[start] == start:  # moved already, with its cycle
            continue
        first, at = rows[start].copy(), start
        while (source := int(places[at])) != start:
            rows[at] = rows[source]
            places[at], at = at, source
        rows[at], places[at] = first, at


def stream_images(
    path: Path,
    reading: "ReadingConfig",
    notes: list[str] | None = None,
    skip: int = 0,
    only: Collection[int] | None = None,
    scale: Scale | None = None,
    uniform: bool = True,
    ranges: list[Range] | None = None,
    is_kept: IsKept | None = None,
) -> Iterator[NamedImage]:
    """Yields the images of ``read_images`` one by one, in the order of the folder or archive; keeps few in memory.

    Args:
        path, reading: see ``read_images``.
        notes: receives notes on the files, after the last image or when the stream is closed.
        skip: number of first images that are left out; not read if possible.
        only: numbers of the images that are read; None: all.
        scale: from ``find_scale``; None: it is found if it is needed.
        uniform: whether images of different sizes or channels are an error.
        ranges: receives the range of black and white if it was found from the images, together with the notes.
        is_kept: see ``read_images``.

    Raises:
        UserError: see ``read_images``.
    """
    report = Report(path, scale, is_kept)
    by_file = reading.frames == "first" and not reading.skip_bad_images  # then an image has its file's number
    wanted = partial(_is_wanted, skip=skip, only=only)
    numbered = enumerate(entries(path, reading, report.ignored))
    files = (entry for number, entry in numbered if not by_file or wanted(number))
    try:
        for number, image in enumerate(_decoded(path, files, reading, report, uniform)):
            if by_file or wanted(number):
                yield image
        if not report.images and not (by_file and (skip or only is not None)):
            raise report.nothing()
    finally:
        report.tell(reading, notes, ranges)


def _is_wanted(number: int, skip: int, only: Collection[int] | None) -> bool:
    return number >= skip and (only is None or number in only)


def _decoded(
    path: Path, files: Iterator[Entry], reading: "ReadingConfig", report: Report, uniform: bool
) -> Iterator[NamedImage]:
    """The images of the files; counts both in the report."""
    first: NamedImage | None = None
    largest = 0
    with ThreadPool(available_cores()) as pool, _pillows_limit(reading):
        while group := _group(files, largest):
            size = first.pixels.shape[:2] if first is not None and uniform else None
            for entry, result in _decode_group(pool, group, path, reading, report, size):
                report.files += 1
                if isinstance(result, Refused):
                    if not reading.skip_bad_images:
                        raise UserError(
                            f"{shown_path(path / entry.name)}: not a readable image ({result.reason}); fix or remove "
                            "it, or leave such files out with --skip_bad_images"
                        )
                    report.refused(f"{shown_path(entry.name)} ({result.reason})")
                    continue
                report.decoded(result)
                for number, pixels in enumerate(result.frames):
                    image = NamedImage(_frame_name(entry.name, number), pixels, report.files - 1, number)
                    first = first or image
                    if uniform:
                        _check_like_first(path, first, image)
                    largest = max(largest, pixels.nbytes)
                    report.images += 1
                    yield image


def _decode_group(
    pool: ThreadPool,
    group: list[Entry],
    path: Path,
    reading: "ReadingConfig",
    report: Report,
    size: tuple[int, int] | None,
) -> Iterator[tuple[Entry, Decoded | Refused]]:
    quiet()
    results = pool.map(partial(decode, reading=reading, scale=report.scale.range, size=size), group)
    if any(isinstance(result, NeedsRange) for result in results):
        found = find_scale(path, reading, is_kept=report.is_kept)
        report.scale = found if found.range else NO_SCALE
        results = pool.map(partial(decode, reading=reading, scale=report.scale.range, size=size), group)
    yield from zip(group, results, strict=True)


def _frame_name(name: PurePosixPath, number: int) -> PurePosixPath:
    return name.with_name(f"{name.name}:{number}") if number else name


def find_scale(path: Path, reading: "ReadingConfig", *others: Path, is_kept: IsKept | None = None) -> Scale:
    """Finds the range of black and white of pixels with more than 8 bits; reads all files.

    Args:
        path: the folder or archive.
        reading: how it is read.
        others: further folders or archives; their images are compared with these, so all share one scale.
        is_kept: see ``read_images``.

    Raises:
        UserError: pixels with more than 8 bits have several types, or there is no such folder or archive.
    """
    if reading.range != "auto":
        return Scale()
    names: list[PurePosixPath] = []
    each: list[Extremes] = []
    files = chain.from_iterable(entries(one, reading) for one in (path, *others))
    quiet()
    with ThreadPool(available_cores()) as pool, _pillows_limit(reading):
        while group := _group(files, 0):
            names += [entry.name for entry in group]
            each += pool.map(partial(extremes, reading=reading), group)
    kept = is_kept(names) if is_kept else [True] * len(names)
    found = reduce(Extremes.merged, (one for one, is_in in zip(each, kept, strict=True) if is_in), Extremes())
    return Scale(*choose_range(reading.range, found, shown_path(path))) if found.kinds else Scale()


def list_images(path: Path, reading: "ReadingConfig") -> Listing:
    """The image files in the order of ``stream_images``, and a hash of their contents."""
    digest, deep = hashlib.sha256(), False
    contents: list[bytes] = []
    folders: set[PurePosixPath] = set()
    ignored = Ignored()
    files = entries(path, reading, ignored)
    with ThreadPool(available_cores()) as pool:
        while group := _group(files, 0, _AT_ONCE):
            for entry, (content, has_more) in zip(group, pool.map(_content_hash, group), strict=True):
                digest.update(repr((str(entry.name), content)).encode())
                folders.add(entry.name.parent)
                contents.append(hashlib.sha256(content.encode()).digest()[:16])
                deep |= has_more
    notes = tuple(ignored.notes())
    return Listing(len(contents), digest.hexdigest(), deep, notes, tuple(contents), frozenset(folders))


def _content_hash(entry: Entry) -> tuple[str, bool]:
    """The hash of a file, or why it cannot be read; and whether its pixels have more than 8 bits."""
    try:
        with entry.open() as stream:
            deep = is_deep(stream)
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest(), deep  # type: ignore[arg-type]  # a stream of bytes
    except (UserError, OSError) as error:
        return str(error), False


def _group(files: Iterator[Entry], largest: int, most: int = 0) -> list[Entry]:
    """The next files that are read together: one a core; more, as memory allows, once an image's size is known."""
    most = most or available_cores()
    if largest:
        most = max(most, min(_AT_ONCE, _BYTES_AT_ONCE // largest))
    group, size = [], 0
    for entry in islice(files, most):
        group.append(entry)
        size += entry.size
        if size > _BYTES_AT_ONCE or entry.refused:  # a refused file is reported before the next one is opened
            break
    return group


@contextlib.contextmanager
def _pillows_limit(reading: "ReadingConfig") -> Iterator[None]:
    """Raises Pillow's own limit of pixels to ours, if it is lower; it also holds for images inside of images."""
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
            f"{shown_path(path)}: images differ: {shown_path(first.name)} is {a[1]}×{a[0]} with {a[2]} channel(s), "
            f"{shown_path(image.name)} is {b[1]}×{b[0]} with {b[2]}; "
            f"{'set --image_size' if a[:2] != b[:2] else 'set --channels to 1 or 3'}"
        )
